//! Compared with prost.
