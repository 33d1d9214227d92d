#include "runtime/machine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

namespace senet::runtime {
namespace {

// cgroup v2 writes "max 100000" or "150000 100000"; v1 has one number in each of two files, -1 for no quota.
double cgroup_processors() {
  std::string quota;
  double period = 0;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> quota >> period) {
    if (quota == "max" || period <= 0) {
      return INFINITY;
    }
    return std::atof(quota.c_str()) / period;
  }
  double v1_quota = 0;
  std::ifstream quota_file("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  std::ifstream period_file("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (quota_file >> v1_quota && period_file >> period && v1_quota > 0 && period > 0) {
    return v1_quota / period;
  }
  return INFINITY;
}

size_t read_bytes(const char* path) {
  std::string text;
  if (std::ifstream file(path); file >> text && text != "max") {
    return static_cast<size_t>(std::strtoull(text.c_str(), nullptr, 10));
  }
  return SIZE_MAX;
}

// The number behind a name in a file of such lines; 0 if it is not there.
size_t read_entry(const char* path, const std::string& name) {
  std::ifstream file(path);
  for (std::string key, value; file >> key && std::getline(file, value);) {
    if (key == name) {
      return static_cast<size_t>(std::strtoull(value.c_str(), nullptr, 10));
    }
  }
  return 0;
}

int affinity_processors() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    return CPU_COUNT(&set);
  }
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

int available_processors() {
  int count = affinity_processors();
  const double quota = cgroup_processors();
  if (quota < count) {
    count = static_cast<int>(std::ceil(quota));
  }
  if (const char* limit = std::getenv("OMP_NUM_THREADS")) {
    const int wanted = std::atoi(limit);
    if (wanted > 0) {
      count = std::min(count, wanted);
    }
  }
  return std::max(count, 1);
}

size_t available_memory() {
  const size_t physical =
      static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return std::min({physical, read_bytes("/sys/fs/cgroup/memory.max"),
                   read_bytes("/sys/fs/cgroup/memory/memory.limit_in_bytes")});
}

size_t free_memory() {
  constexpr size_t kKibibyte = 1024;
  const size_t available = read_entry("/proc/meminfo", "MemAvailable:");
  size_t free =
      available == 0 ? SIZE_MAX : kKibibyte * (available + read_entry("/proc/meminfo", "SwapFree:"));
  const size_t limit = read_bytes("/sys/fs/cgroup/memory.max");
  if (limit != SIZE_MAX) {
    // Cached files are given up for whoever needs the memory.
    const char* const statistics = "/sys/fs/cgroup/memory.stat";
    const size_t files = read_entry(statistics, "inactive_file") + read_entry(statistics, "active_file");
    const size_t used = read_bytes("/sys/fs/cgroup/memory.current");
    const size_t kept = used > files ? used - files : 0;
    free = std::min(free, limit > kept ? limit - kept : 0);
  }
  return free;
}

}  // namespace senet::runtime
