// A stand-in for the NVIDIA driver's library, whose devices have a name and a size. For cuda-library.test.ts.
#include <cstddef>
#include <cstdio>

extern "C" {

int cuInit(unsigned) {
  return 0;
}

int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return 0;
}

int cuDeviceGetName(char* name, int length, int device) {
  std::snprintf(name, static_cast<size_t>(length), "Stand-in %d", device);
  return 0;
}

int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 75 ? 9 : attribute == 76 ? 1 : -1;
  return 0;
}

int cuDeviceTotalMem_v2(size_t* bytes, int) {
  *bytes = size_t{3} << 29;
  return 0;
}
}
