/* cpu.c -- feature bits from the compiler's own detection, names and sizes from the system (best effort). */
#define _GNU_SOURCE
#include "base/cpu.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#if defined(__linux__) && defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

static fbp_cpu cpu;
static pthread_once_t cpu_once = PTHREAD_ONCE_INIT;

/* Feature bits.  __builtin_cpu_supports also asks whether the operating system saves the wide
 * registers, which the CPUID bits alone do not tell. */
static void read_features(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    cpu.has_sse2 = true;
    cpu.has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    cpu.has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                     __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && cpu.has_avx2;
#elif defined(__aarch64__) && defined(__linux__)
    cpu.has_neon = (getauxval(AT_HWCAP) & HWCAP_ASIMD) != 0;
#elif defined(__aarch64__)
    cpu.has_neon = true; /* part of every aarch64 that runs macOS */
#endif
}

#if defined(__APPLE__)

static int64_t read_sysctl(const char *name) {
    int64_t value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 ? value : 0;
}

static void read_system(void) {
    size_t size = sizeof cpu.brand - 1;
    if (sysctlbyname("machdep.cpu.brand_string", cpu.brand, &size, NULL, 0) != 0) cpu.brand[0] = '\0';
    cpu.l1_bytes = read_sysctl("hw.l1dcachesize");
    cpu.l2_bytes = read_sysctl("hw.l2cachesize");
    cpu.l3_bytes = read_sysctl("hw.l3cachesize");
    cpu.line_bytes = read_sysctl("hw.cachelinesize");
}

#else

/* First line of a file without its end, false when there is none. */
static bool read_line(const char *path, char *line, int capacity) {
    FILE *file = fopen(path, "r");
    if (!file) return false;
    bool read = fgets(line, capacity, file) != NULL;
    fclose(file);
    if (read) line[strcspn(line, "\n")] = '\0';
    return read;
}

/* "48K", "1024K", "32M" or plain bytes, as /sys writes sizes. */
static int64_t parse_size(const char *text) {
    long long value = 0;
    char unit = '\0';
    if (sscanf(text, "%lld%c", &value, &unit) < 1 || value < 0) return 0;
    return unit == 'K' ? value << 10 : unit == 'M' ? value << 20 : value;
}

/* Cache sizes of core 0: /sys lists one folder per cache, data and instruction apart. */
static void read_caches(void) {
    for (int index = 0; index < 8; index++) {
        const char *folder = "/sys/devices/system/cpu/cpu0/cache";
        char path[128], level[32], type[32], text[32];
        snprintf(path, sizeof path, "%s/index%d/level", folder, index);
        if (!read_line(path, level, sizeof level)) return;
        snprintf(path, sizeof path, "%s/index%d/type", folder, index);
        if (!read_line(path, type, sizeof type) || strcmp(type, "Instruction") == 0) continue;
        snprintf(path, sizeof path, "%s/index%d/coherency_line_size", folder, index);
        if (read_line(path, text, sizeof text)) cpu.line_bytes = parse_size(text);
        snprintf(path, sizeof path, "%s/index%d/size", folder, index);
        if (!read_line(path, text, sizeof text)) continue;
        int64_t *const bytes[] = {&cpu.l1_bytes, &cpu.l2_bytes, &cpu.l3_bytes};
        if (level[0] >= '1' && level[0] <= '3') *bytes[level[0] - '1'] = parse_size(text);
    }
}

/* x86 names the brand in /proc/cpuinfo's "model name"; boards with device trees in their "model". */
static void read_brand(void) {
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (!colon || strncmp(line, "model name", 10) != 0) continue;
        snprintf(cpu.brand, sizeof cpu.brand, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (file) fclose(file);
    if (!cpu.brand[0] && read_line("/proc/device-tree/model", line, sizeof line))
        snprintf(cpu.brand, sizeof cpu.brand, "%.95s", line);
}

static void read_system(void) {
    read_brand();
    read_caches();
}

#endif

static void read_cpu(void) {
    read_features();
    read_system();
    if (!cpu.brand[0]) snprintf(cpu.brand, sizeof cpu.brand, "unknown");
    if (cpu.line_bytes <= 0) cpu.line_bytes = 64;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    cpu.cores = cores > 0 ? (int)cores : 1;
}

const fbp_cpu *fbp_cpu_get(void) {
    pthread_once(&cpu_once, read_cpu);
    return &cpu;
}

bool fbp_cpu_has_isa(const char *name) {
    const fbp_cpu *here = fbp_cpu_get();
    if (!name) return false;
    if (strcmp(name, "scalar") == 0) return true;
    if (strcmp(name, "sse2") == 0) return here->has_sse2;
    if (strcmp(name, "avx2") == 0) return here->has_avx2;
    if (strcmp(name, "avx512") == 0) return here->has_avx512;
    return strcmp(name, "neon") == 0 && here->has_neon;
}

/* Least of two limits, where 0 says that there is none. */
static int least_limit(int a, int b) { return a == 0 || (b != 0 && b < a) ? b : a; }

/* Limit in whole cores that `quota` microseconds of each `period` amount to, 0 = none (quota -1 or "max"). */
static int cores_of_quota(double quota, double period) {
    if (!(quota > 0 && period > 0)) return 0;
    double cores = quota / period;
    return cores >= 1e6 ? 0 : (int)cores + (cores > (int)cores);
}

/* First two numbers in a file of one line; false when there are fewer. */
static bool read_numbers(const char *path, int count, double *numbers) {
    FILE *file = fopen(path, "r");
    if (!file) return false;
    bool read = fscanf(file, "%lf", &numbers[0]) == 1 && (count < 2 || fscanf(file, "%lf", &numbers[1]) == 1);
    fclose(file);
    return read;
}

/* The limit that stands in one folder of the tree: cpu.max in version 2, two files in version 1. */
static int folder_quota(const char *folder) {
    char path[640];
    double numbers[2];
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (read_numbers(path, 2, numbers)) return cores_of_quota(numbers[0], numbers[1]); /* "max 100000" does not read */
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    if (!read_numbers(path, 1, &numbers[0])) return 0;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    return read_numbers(path, 1, &numbers[1]) ? cores_of_quota(numbers[0], numbers[1]) : 0;
}

/* Least limit from the group `path` up to the root of its tree at `mount`/`tree`.  In a container the
 * path may be the host's and not exist here: then the parents that do, at last the root, count. */
static int tree_quota(const char *mount, const char *tree, const char *path) {
    char folder[512];
    int least = 0;
    int root = snprintf(folder, sizeof folder, "%s%s%s", mount, *tree ? "/" : "", tree);
    if (root < 0 || root >= (int)sizeof folder) return 0;
    if (snprintf(folder + root, sizeof folder - (size_t)root, "%s", path) >= (int)sizeof folder - root)
        folder[root] = '\0'; /* too deep to follow: the root alone */
    for (;;) {
        least = least_limit(least, folder_quota(folder));
        char *slash = strrchr(folder, '/');
        if (!slash || slash < folder + root) return least;
        *slash = '\0';
    }
}

/* Whether "cpu" is among the comma-separated controllers ("cpu,cpuacct"; not "cpuset"). */
static bool lists_cpu(const char *controllers) {
    for (const char *name = controllers; *name;) {
        size_t length = strcspn(name, ",");
        if (length == 3 && strncmp(name, "cpu", 3) == 0) return true;
        name += length + (name[length] == ',');
    }
    return false;
}

int fbp_cpu_quota(const char *membership, const char *mount) {
    char line[512];
    int least = 0;
    FILE *file = fopen(membership, "r");
    /* Lines read "number:controllers:path"; version 2 has no controllers. */
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path) continue;
        *controllers++ = '\0';
        *path++ = '\0';
        if (*controllers == '\0') { /* version 2, alone or beside version 1 */
            least = least_limit(least, tree_quota(mount, "", path));
            least = least_limit(least, tree_quota(mount, "unified", path));
        } else if (lists_cpu(controllers)) {
            least = least_limit(least, tree_quota(mount, controllers, path));
            least = least_limit(least, tree_quota(mount, "cpu", path));
        }
    }
    if (file) fclose(file);
    return least;
}

int fbp_cpu_usable(void) {
    int usable = fbp_cpu_get()->cores;
#if defined(__linux__)
    cpu_set_t set;
    /* Fails on machines of more than 1024 cores; their online count then stands. */
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) usable = CPU_COUNT(&set);
    usable = least_limit(usable, fbp_cpu_quota("/proc/self/cgroup", "/sys/fs/cgroup"));
#endif
    return usable;
}
