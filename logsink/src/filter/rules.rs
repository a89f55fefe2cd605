//! The rules document (TOML) and its compiled form.
