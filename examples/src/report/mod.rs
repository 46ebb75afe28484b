//! What a run leaves for people (`report.html`) and for programs (`metrics.json`).
