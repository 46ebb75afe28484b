//! Ctrl-C: while a model is trained, the first ends training after the step it is in, with a
//! checkpoint, and the second ends the program at once. Outside of training, nothing is lost: the
//! first ends the program.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use burn::train::Interrupter;

use crate::console::warn;
use crate::files;
use crate::signals::{INTERRUPTED, on_interrupt};

static TRAINING: AtomicBool = AtomicBool::new(false);
static DASHBOARD: AtomicBool = AtomicBool::new(false);

/// Training continues as long as this exists.
pub(super) struct Training;

impl Training {
    pub(super) fn begin() -> Self {
        TRAINING.store(true, Ordering::SeqCst);
        Self
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        TRAINING.store(false, Ordering::SeqCst);
        DASHBOARD.store(false, Ordering::SeqCst);
    }
}

/// What a Ctrl-C leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Response {
    SaveAndStop,
    Exit,
}

/// Counts the Ctrl-Cs of one run.
struct KeyPresses {
    interrupter: Interrupter,
    pressed: AtomicBool,
}

impl KeyPresses {
    fn press(&self, training: bool) -> Response {
        if !training || self.pressed.swap(true, Ordering::SeqCst) {
            return Response::Exit;
        }
        self.interrupter.stop(Some("Ctrl-C"));
        Response::SaveAndStop
    }
}

/// Lets Ctrl-C (and SIGTERM, where there is one) stop training through `interrupter`.
///
/// # Errors
///
/// If the process has a handler already.
pub fn stop_on_ctrl_c(interrupter: Interrupter) -> Result<()> {
    let keys = KeyPresses {
        interrupter,
        pressed: AtomicBool::new(false),
    };
    on_interrupt(move || match keys.press(TRAINING.load(Ordering::SeqCst)) {
        Response::SaveAndStop if DASHBOARD.load(Ordering::SeqCst) => {}
        Response::SaveAndStop => {
            warn(
                "\nStopping after this step, with a checkpoint. \
                 Ctrl-C again stops at once, without one.",
            );
        }
        Response::Exit => {
            if DASHBOARD.load(Ordering::SeqCst) {
                restore_terminal();
            }
            files::remove_unfinished();
            std::process::exit(INTERRUPTED.into());
        }
    })
}

/// Makes Ctrl-C a signal again while Burn's dashboard, which reads raw keys and ignores this one,
/// has the terminal. Elsewhere than on Unix the dashboard's own key, `q`, stops a run with a
/// checkpoint.
pub(super) fn keep_key_on_dashboard() {
    DASHBOARD.store(true, Ordering::SeqCst);
    #[cfg(unix)]
    unix::keep_key();
}

fn restore_terminal() {
    use crossterm::cursor::Show;
    use crossterm::event::DisableMouseCapture;
    use crossterm::terminal::{LeaveAlternateScreen, disable_raw_mode};
    let _ = disable_raw_mode();
    let _ = crossterm::execute!(
        io::stdout(),
        DisableMouseCapture,
        LeaveAlternateScreen,
        Show
    );
}

#[cfg(unix)]
mod unix {
    use std::io;
    use std::thread;
    use std::time::Duration;

    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

    /// The dashboard sets raw mode from a thread of its own, soon.
    pub(super) fn keep_key() {
        thread::spawn(|| {
            for _ in 0..200 {
                thread::sleep(Duration::from_millis(10));
                let Ok(mut settings) = tcgetattr(io::stdin()) else {
                    return;
                };
                if !settings.local_modes.contains(LocalModes::ISIG) {
                    settings.local_modes |= LocalModes::ISIG;
                    let _ = tcsetattr(io::stdin(), OptionalActions::Now, &settings);
                    return;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(interrupter: &Interrupter) -> KeyPresses {
        KeyPresses {
            interrupter: interrupter.clone(),
            pressed: AtomicBool::new(false),
        }
    }

    #[test]
    fn during_training_the_first_press_stops_and_the_second_exits() {
        let interrupter = Interrupter::new();
        let keys = keys(&interrupter);
        assert!(!interrupter.should_stop());
        assert_eq!(keys.press(true), Response::SaveAndStop);
        assert!(interrupter.should_stop());
        assert_eq!(keys.press(true), Response::Exit);
    }

    #[test]
    fn outside_of_training_the_first_press_exits() {
        let interrupter = Interrupter::new();
        assert_eq!(keys(&interrupter).press(false), Response::Exit);
        assert!(!interrupter.should_stop());
    }
}
