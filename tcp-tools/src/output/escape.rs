//! Strings from outside: any process may call itself `\x1b[2J`, or by a name that reads backwards.

use std::io::Write as _;

/// Whether a terminal might act on `c`, or show nothing for it: controls (C0, C1, DEL), format
/// characters (bidi overrides, zero-width ones), line separators, private and unassigned ones.
fn hidden(c: char) -> bool {
    // The standard library knows what is printable; it also escapes quotes and the backslash.
    if c.is_ascii() {
        c.is_ascii_control()
    } else {
        c.escape_debug().len() > 1
    }
}

/// Appends `bytes` as text for a terminal or CSV. What is hidden becomes `\xNN` (a byte) or
/// `\u{NNNN}` (a character), and a backslash `\x5C`, so that the text tells exactly what it was.
pub(super) fn terminal(out: &mut Vec<u8>, bytes: &[u8]) {
    let special = |c| c == '\\' || hidden(c);
    pieces(bytes, special, |piece| match piece {
        Piece::Plain(text) => out.extend(text.as_bytes()),
        Piece::Special(c) if !c.is_ascii() => {
            let _ = write!(out, "\\u{{{:04X}}}", c as u32);
        }
        Piece::Special(c) => {
            let _ = write!(out, "\\x{:02X}", c as u32);
        }
        Piece::Invalid(bytes) => {
            for byte in bytes {
                let _ = write!(out, "\\x{byte:02X}");
            }
        }
    });
}

/// Appends `bytes` as a JSON string. What is hidden becomes `\uNNNN`, which reads back as the same
/// text; invalid UTF-8, for which JSON has no notation, becomes U+FFFD.
///
/// serde_json's escaping would let DEL, C1 and format characters through to a terminal.
pub(super) fn json(out: &mut Vec<u8>, bytes: &[u8]) {
    let special = |c| c == '\\' || c == '"' || hidden(c);
    out.push(b'"');
    pieces(bytes, special, |piece| match piece {
        Piece::Plain(text) => out.extend(text.as_bytes()),
        Piece::Special(c @ ('\\' | '"')) => out.extend([b'\\', c as u8]),
        Piece::Special(c) => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
        Piece::Invalid(_) => out.extend("\u{fffd}".as_bytes()),
    });
    out.push(b'"');
}

enum Piece<'a> {
    Plain(&'a str),
    Special(char),
    /// What `String::from_utf8_lossy` replaces by one U+FFFD.
    Invalid(&'a [u8]),
}

/// Shows `each` the pieces of `bytes` in order.
fn pieces(bytes: &[u8], special: impl Fn(char) -> bool, mut each: impl FnMut(Piece)) {
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some((at, c)) = rest.char_indices().find(|&(_, c)| special(c)) {
            each(Piece::Plain(&rest[..at]));
            each(Piece::Special(c));
            rest = &rest[at + c.len_utf8()..];
        }
        each(Piece::Plain(rest));
        if !chunk.invalid().is_empty() {
            each(Piece::Invalid(chunk.invalid()));
        }
    }
}
