//! Panics of other crates, on files that are damaged.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static IS_SILENT: Cell<bool> = const { Cell::new(false) };
}

/// What `read` gives; `None` if it panics, of which nothing is printed.
pub(crate) fn caught<T>(read: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_SILENT.get() {
                print(panic);
            }
        }));
    });
    let before = IS_SILENT.replace(true);
    let read = catch_unwind(AssertUnwindSafe(read));
    IS_SILENT.set(before);
    read.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_none_and_the_next_is_one_again() {
        assert_eq!(caught(|| 7), Some(7));
        assert_eq!(
            caught(|| caught(|| -> u8 { panic!("deliberate") })),
            Some(None)
        );
        assert!(!IS_SILENT.get());
    }
}
