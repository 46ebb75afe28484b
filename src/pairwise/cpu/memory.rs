//! Large buffers.

use std::sync::Mutex;

use bytemuck::Zeroable;

/// That many zeros.
///
/// On Linux, large buffers ask for huge pages: each is written once and freed, and a fault for
/// every four kilobytes of it would cost as much as a tenth of the work that fills it.
pub(super) fn zeros<T: Clone + Zeroable>(len: usize) -> Vec<T> {
    let buffer = vec![T::zeroed(); len];
    #[cfg(target_os = "linux")]
    ask_for_huge_pages(&buffer);
    buffer
}

/// What passes have packed into, for those to come: new pages cost as much as packing. There are
/// no more of them than [`KEPT`].
static SPARE: Mutex<Vec<Vec<u32>>> = Mutex::new(Vec::new());
/// As many as a pass packs into by default.
const KEPT: usize = (16 << 20) / size_of::<u32>();

/// Words to pack into.
#[derive(Default)]
pub(super) struct Words(Vec<u32>);

impl Words {
    /// At least so many, which hold anything.
    pub fn with_room_for(&mut self, len: usize) -> &mut [u32] {
        if self.0.len() < len {
            let mut spare = SPARE.lock().expect("nothing panics with it");
            let large = spare
                .iter()
                .enumerate()
                .filter(|(_, words)| words.len() >= len);
            let least = large.min_by_key(|(_, words)| words.len()).map(|(k, _)| k);
            let found = least.map(|k| spare.swap_remove(k));
            drop(spare);
            self.0 = found.unwrap_or_else(|| zeros(len));
        }
        &mut self.0[..len]
    }

    pub fn all(&self) -> &[u32] {
        &self.0
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        let words = std::mem::take(&mut self.0);
        if words.len() > KEPT {
            return;
        }
        let mut spare = SPARE.lock().expect("nothing panics with it");
        spare.push(words);
        while spare.iter().map(Vec::len).sum::<usize>() > KEPT {
            spare.remove(0);
        }
    }
}

#[cfg(target_os = "linux")]
fn ask_for_huge_pages<T>(buffer: &[T]) {
    const HUGE_PAGE: usize = 2 << 20;
    let start = buffer.as_ptr().addr().next_multiple_of(HUGE_PAGE);
    let end = (buffer.as_ptr().addr() + size_of_val(buffer)) / HUGE_PAGE * HUGE_PAGE;
    if start < end {
        let first = buffer.as_ptr().with_addr(start);
        // SAFETY: the range lies within the buffer, and the advice changes no content. That it is
        // not taken does no harm.
        unsafe { libc::madvise(first.cast_mut().cast(), end - start, libc::MADV_HUGEPAGE) };
    }
}
