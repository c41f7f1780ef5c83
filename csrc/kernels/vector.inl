/* vector.inl -- loads, stores and selection for the real type in force (include after real_f32.h or real_f64.h). */

/* x in every lane; x - 0 is x, -0 and NaN too, and stays one broadcast however large the function around it
 * (a loop over lanes becomes a masked broadcast a lane). */
FBP_INLINE V R(v_splat)(T x) { return x - (V){0}; }
FBP_INLINE V R(v_load)(const T *p) {
    V v;
    memcpy(&v, p, sizeof v);
    return v;
}
FBP_INLINE void R(v_store)(T *p, V v) { memcpy(p, &v, sizeof v); }

/* mask is a comparison's result: all bits or none per lane. */
FBP_INLINE V R(v_select)(VI mask, V yes, V no) { return (V)((mask & (VI)yes) | (~mask & (VI)no)); }
