/* cpu.h -- what the processor at hand is and can do; asked once, then remembered. */
#ifndef FBP_BASE_CPU_H
#define FBP_BASE_CPU_H

#include <stdbool.h>
#include <stdint.h>

typedef struct fbp_cpu {
    char brand[96];      /* as the system names it, "unknown" when it does not */
    bool has_sse2;       /* x86-64: always */
    bool has_avx2;       /* AVX2 and FMA, and the system saves the registers */
    bool has_avx512;     /* AVX-512 F, DQ, BW and VL, likewise */
    bool has_neon;       /* aarch64: always */
    int cores;           /* online in the machine, whatever this process may use; at least 1 */
    int64_t l1_bytes;    /* data cache of the first core; 0 when unknown, as below */
    int64_t l2_bytes;
    int64_t l3_bytes;
    int64_t line_bytes;  /* cache line; 64 when unknown */
} fbp_cpu;

/* The processor's description; never NULL, the same pointer for the life of the process. */
const fbp_cpu *fbp_cpu_get(void);

/* Whether kernels compiled for the instruction set of this name ("scalar", "sse2", "avx2",
 * "avx512", "neon") run here.  False for a name that it does not know, and for NULL. */
bool fbp_cpu_has_isa(const char *name);

/* Cores that this process may use: the smaller of its affinity and its container's CPU quota; at least 1. */
int fbp_cpu_usable(void);

/* CPU quota in whole cores, rounded up, of the control group named in the file `membership`
 * (/proc/self/cgroup) below the folder `mount` (/sys/fs/cgroup): the least over the group and
 * its parents, in version 1, 2 or both; 0 when there is none or it cannot be read. */
int fbp_cpu_quota(const char *membership, const char *mount);

#endif
