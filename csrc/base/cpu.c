/* cpu.c -- feature bits from the compiler's own detection, names and sizes from the system (best effort). */
#define _GNU_SOURCE
#include "base/cpu.h"

#include <pthread.h>
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
