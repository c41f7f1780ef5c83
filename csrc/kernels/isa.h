/* isa.h -- what a kernel file knows about the instruction set it is compiled for.
 *
 * Each csrc/kernels/<family>.c is one text over compiler vector types, compiled once per
 * instruction set.  The build (tools/core_build.py) passes
 *     -DFBP_ISA=avx512 -DFBP_VECTOR_BYTES=64   and the flags that allow it;
 * FBP_VECTOR_BYTES=0 is the scalar set: vectors of one lane.
 * A family exports one table of function pointers, FBP_ISA_SYMBOL(fbp_<family>_kernels).
 */
#ifndef FBP_KERNELS_ISA_H
#define FBP_KERNELS_ISA_H

#include <stdint.h>
#include <string.h>

#if !defined(FBP_ISA) || !defined(FBP_VECTOR_BYTES)
#error "compile kernel files with -DFBP_ISA=<name> -DFBP_VECTOR_BYTES=<n>"
#endif

#define FBP_PASTE_(a, b) a##_##b
#define FBP_PASTE(a, b) FBP_PASTE_(a, b)
#define FBP_ISA_SYMBOL(name) FBP_PASTE(name, FBP_ISA)

#if FBP_VECTOR_BYTES == 0
#define FBP_F32_LANES 1
#define FBP_F64_LANES 1
#else
#define FBP_F32_LANES (FBP_VECTOR_BYTES / 4)
#define FBP_F64_LANES (FBP_VECTOR_BYTES / 8)
#endif

typedef float fbp_vf32 __attribute__((vector_size(FBP_F32_LANES * 4)));
typedef int32_t fbp_vi32 __attribute__((vector_size(FBP_F32_LANES * 4)));
typedef uint32_t fbp_vu32 __attribute__((vector_size(FBP_F32_LANES * 4)));
typedef double fbp_vf64 __attribute__((vector_size(FBP_F64_LANES * 8)));
typedef int64_t fbp_vi64 __attribute__((vector_size(FBP_F64_LANES * 8)));
typedef uint64_t fbp_vu64 __attribute__((vector_size(FBP_F64_LANES * 8)));

#define FBP_INLINE static inline __attribute__((always_inline, unused))

#endif
