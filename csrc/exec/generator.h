/* generator.h -- where random ops get their place in the universe of Philox blocks.
 *
 * A generator is a counter: no number is computed here.  An op that needs random blocks draws them, keeps (seed, offset) in its
 * attribute, and is a pure function from then on.
 */
#ifndef FBP_EXEC_GENERATOR_H
#define FBP_EXEC_GENERATOR_H

#include <stdint.h>

typedef struct fbp_generator {
    uint64_t seed;   /* key of the blocks */
    uint64_t offset; /* first block that no op has drawn yet */
} fbp_generator;

/* The generator of those who name none.  Plans draw without the host's lock: so all may, and no two get the same blocks. */
fbp_generator *fbp_generator_default(void);
/* Start the universe of this seed. */
void fbp_generator_seed(fbp_generator *generator, uint64_t seed);
/* Go on from a place: as it is, with 0 blocks taken. */
void fbp_generator_set(fbp_generator *generator, fbp_generator place);
/* Reserve `blocks` blocks: the seed, and the first of them. */
fbp_generator fbp_generator_take(fbp_generator *generator, uint64_t blocks);
/* The same with blocks >= 0; returns the first. */
uint64_t fbp_generator_draw(fbp_generator *generator, int64_t blocks);
/* A seed from the operating system's entropy, or from time where it has none. */
uint64_t fbp_generator_entropy(void);

#endif
