# The three OpenCV modules that image_io.cpp uses, as the target uvit::opencv. Debian's CMake package of OpenCV lies in libopencv-dev, which brings
# the whole desktop with it; the modules' own packages do without it.
find_path(UVIT_OPENCV_INCLUDE opencv2/core.hpp PATH_SUFFIXES opencv4 REQUIRED)
add_library(uvit_opencv INTERFACE)
add_library(uvit::opencv ALIAS uvit_opencv)
target_include_directories(uvit_opencv SYSTEM INTERFACE "${UVIT_OPENCV_INCLUDE}")
foreach(module core imgproc imgcodecs)
  find_library(UVIT_OPENCV_${module} opencv_${module} REQUIRED)
  target_link_libraries(uvit_opencv INTERFACE "${UVIT_OPENCV_${module}}")
endforeach()
