//! The terminal that somebody looks at: a picture that is redrawn in place, and keys.
//!
//! Whatever ends the program, but SIGKILL, leaves the terminal as it was: the value restores it when it is
//! dropped, and a panic before it says why.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read as _, Write as _},
    os::fd::AsFd as _,
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use crossterm::{
    QueueableCommand as _,
    cursor::{Hide, MoveTo, Show},
    style::Print,
    terminal::{
        BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap,
        EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
        enable_raw_mode, size,
    },
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{Signal, SignalKind, signal},
};

/// What somebody does at the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Presses a key; ^C is 3.
    Key(u8),
    /// Changes its size.
    Resize,
}

/// The terminal at standard output, while it is ours.
pub struct Terminal {
    /// Standard input, if that is a terminal too.
    keys: Option<AsyncFd<File>>,
    resizes: Signal,
    frame: Vec<u8>,
}

/// Whether the terminal is other than it was found.
static TAKEN: AtomicBool = AtomicBool::new(false);

impl Terminal {
    /// Takes the terminal at standard output; `None` if there is none. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When it does not do as it is told.
    pub fn take() -> io::Result<Option<Self>> {
        static HOOK: Once = Once::new();
        if !io::stdout().is_terminal() {
            return Ok(None);
        }
        HOOK.call_once(|| {
            let next = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                restore();
                next(info);
            }));
        });
        let terminal = Self {
            keys: keyboard()?,
            resizes: signal(SignalKind::window_change())?,
            frame: Vec::new(),
        };
        TAKEN.store(true, Ordering::Relaxed);
        if terminal.keys.is_some() {
            enable_raw_mode()?;
        }
        let mut out = io::stdout();
        out.queue(EnterAlternateScreen)?
            .queue(Hide)?
            .queue(DisableLineWrap)?
            .flush()?;
        Ok(Some(terminal))
    }

    /// Columns and lines.
    #[must_use]
    pub fn size(&self) -> (u16, u16) {
        // One that does not tell (a serial line) says 0 by 0.
        let known = size().ok().filter(|(width, height)| width * height > 0);
        known.unwrap_or((80, 24))
    }

    /// Replaces the picture, line by line and in one write, so that nothing flickers.
    ///
    /// # Errors
    ///
    /// When the terminal cannot be written to.
    pub fn draw(&mut self, picture: &str) -> io::Result<()> {
        self.frame.clear();
        self.frame.queue(BeginSynchronizedUpdate)?;
        for (row, line) in (0..).zip(picture.lines()) {
            self.frame
                .queue(MoveTo(0, row))?
                .queue(Print(line))?
                .queue(Clear(ClearType::UntilNewLine))?;
        }
        // The line below the last one, or the last one of the screen again, which is to stay.
        let (_, height) = self.size();
        let lines = u16::try_from(picture.lines().count()).unwrap_or(u16::MAX);
        if lines < height {
            self.frame
                .queue(MoveTo(0, lines))?
                .queue(Clear(ClearType::FromCursorDown))?;
        }
        self.frame.queue(EndSynchronizedUpdate)?;
        let mut out = io::stdout().lock();
        out.write_all(&self.frame)?;
        out.flush()
    }

    /// Waits until somebody does something. Cancel-safe.
    ///
    /// # Errors
    ///
    /// When the keyboard cannot be read.
    pub async fn input(&mut self) -> io::Result<Input> {
        tokio::select! {
            key = key(&mut self.keys) => key.map(Input::Key),
            _ = self.resizes.recv() => Ok(Input::Resize),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// As it was found. What fails cannot be helped.
fn restore() {
    if !TAKEN.swap(false, Ordering::Relaxed) {
        return;
    }
    let mut out = io::stdout();
    let _ = out
        .queue(EndSynchronizedUpdate)
        .and_then(|out| out.queue(EnableLineWrap))
        .and_then(|out| out.queue(Show))
        .and_then(|out| out.queue(LeaveAlternateScreen))
        .and_then(|out| out.flush());
    let _ = disable_raw_mode();
}

fn keyboard() -> io::Result<Option<AsyncFd<File>>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    let file = File::from(stdin.as_fd().try_clone_to_owned()?);
    // SAFETY: the file owns its descriptor, and the `AsyncFd` owns the file.
    unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }
        .map(Some)
        .map_err(Into::into)
}

/// The descriptor stays blocking, because it is the shell's too; so nothing is read unless something waits.
async fn key(keys: &mut Option<AsyncFd<File>>) -> io::Result<u8> {
    let Some(file) = keys else {
        return std::future::pending().await;
    };
    loop {
        let mut guard = file.readable_mut().await?;
        if !waits(guard.get_inner()) {
            guard.clear_ready();
            continue;
        }
        let mut byte = [0];
        match guard.get_inner_mut().read(&mut byte) {
            Ok(1) => return Ok(byte[0]),
            // Hung up: the signal that says so ends the trace.
            Ok(_) => return std::future::pending().await,
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                return std::future::pending().await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether there is something to read.
fn waits(file: &File) -> bool {
    let mut poll = [rustix::event::PollFd::new(
        file,
        rustix::event::PollFlags::IN,
    )];
    let now = rustix::event::Timespec::default();
    rustix::event::poll(&mut poll, Some(&now)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        os::fd::{FromRawFd as _, OwnedFd},
        process::Command,
    };

    use rustix::termios::tcgetattr;

    use super::*;

    const PANICS: &str = "terminal::tests::panics_at_a_terminal";

    fn pseudo_terminal() -> (File, OwnedFd) {
        let (mut master, mut slave) = (0, 0);
        let (modes, size) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: writes two descriptors; null pointers ask for no more.
        let done =
            unsafe { libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), modes, size) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        // SAFETY: new descriptors that have no other owner.
        unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }
    }

    #[test]
    #[ignore = "what the test below runs"]
    fn panics_at_a_terminal() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(async {
            let mut terminal = Terminal::take().unwrap().unwrap();
            terminal.draw("a picture").unwrap();
            panic!("on purpose");
        });
    }

    #[test]
    fn a_panic_leaves_the_terminal_as_it_was() {
        let (mut master, slave) = pseudo_terminal();
        let modes = |slave: &OwnedFd| format!("{:?}", tcgetattr(slave).unwrap());
        let before = modes(&slave);
        let stream = || slave.try_clone().unwrap();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", PANICS, "--ignored", "--nocapture"])
            .env_remove("RUST_BACKTRACE")
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .unwrap();
        let mut text = String::new();
        while !text.contains("test result") {
            let mut buffer = [0; 1024];
            let length = master.read(&mut buffer).unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        assert!(!child.wait().unwrap().success());
        assert_eq!(modes(&slave), before);
        // Taken, drawn, given back, and only then the message.
        let parts = ["\x1b[?1049h", "a picture", "\x1b[?1049l", "on purpose"];
        let order = parts.map(|part| text.find(part).expect(&text));
        assert!(order.is_sorted(), "{text:?}");
    }
}
