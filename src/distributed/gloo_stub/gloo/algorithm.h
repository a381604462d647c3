#pragma once
// The LibTorch package has ProcessGroupGloo.hpp without the gloo headers that it includes. The class holds gloo's types behind shared_ptr alone, so
// their declarations are enough to make and call one. Nothing here may be instantiated: its vtable would stand in for the library's own.
