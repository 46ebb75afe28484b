//! Large buffers.

use std::sync::Mutex;

use bytemuck::{Pod, Zeroable};

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

/// What passes have packed into and computed blocks in, for those to come: new pages cost as much
/// as packing. There are no more of them than [`KEPT`].
static SPARE: Mutex<Vec<Vec<u64>>> = Mutex::new(Vec::new());
/// As many as a block and what is packed for it take by default.
const KEPT: usize = (16 << 20) / size_of::<u64>();

/// Room that a pass needs until its end.
#[derive(Default)]
pub(super) struct Room(Vec<u64>);

impl Room {
    /// Elements that may be anything.
    pub fn of<E: Pod>(&mut self, count: usize) -> &mut [E] {
        let len = (count * size_of::<E>()).div_ceil(size_of::<u64>());
        if self.0.len() < len {
            let mut spare = SPARE.lock().expect("nothing panics with it");
            let large = spare
                .iter()
                .enumerate()
                .filter(|(_, room)| room.len() >= len);
            let least = large.min_by_key(|(_, room)| room.len()).map(|(k, _)| k);
            let found = least.map(|k| spare.swap_remove(k));
            drop(spare);
            self.0 = found.unwrap_or_else(|| zeros(len));
        }
        &mut bytemuck::cast_slice_mut(&mut self.0)[..count]
    }

    pub fn all<E: Pod>(&self) -> &[E] {
        bytemuck::cast_slice(&self.0)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let room = std::mem::take(&mut self.0);
        if room.is_empty() || room.len() > KEPT {
            return;
        }
        let mut spare = SPARE.lock().expect("nothing panics with it");
        spare.push(room);
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
