//! Rules that the compiler does not keep.
