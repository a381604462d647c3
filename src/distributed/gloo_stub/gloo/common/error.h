#pragma once
// Nothing of it is used by ProcessGroupGloo.hpp.
