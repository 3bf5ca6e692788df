//! One replica of the replicated state.
