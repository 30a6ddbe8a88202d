//! Where one server-sent event ends and the next has not begun. WHATWG HTML, section 9.2.6.

/// Whether a Content-Type is an event stream.
pub fn is_event_stream(content_type: &[u8]) -> bool {
    const NAME: &[u8] = b"text/event-stream";
    content_type.get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME))
        && matches!(content_type.get(NAME.len()), None | Some(b';' | b' ' | b'\t'))
}

/// Follows the lines of an event stream. Lines end in LF, CR LF or CR; an empty one ends an event.
#[derive(Debug, Clone, Copy)]
pub struct Events {
    line: Line,
    /// No line of an event has been seen since the last empty line. Comments do not count.
    is_fresh: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Start,
    Within,
    Comment,
    /// After a CR, which has ended the line; an LF may still belong to it.
    Return,
}

impl Default for Events {
    fn default() -> Events {
        Events { line: Line::Start, is_fresh: true }
    }
}

impl Events {
    pub fn is_between_events(&self) -> bool {
        self.is_fresh && matches!(self.line, Line::Start | Line::Return)
    }

    pub fn push(&mut self, byte: u8) {
        let at_start = matches!(self.line, Line::Start | Line::Return);
        self.line = match (self.line, byte) {
            (Line::Return, b'\n') => Line::Start,
            (line, b'\n' | b'\r') => {
                self.is_fresh = self.is_fresh && line == Line::Comment || at_start;
                if byte == b'\r' { Line::Return } else { Line::Start }
            }
            (Line::Start | Line::Return, b':') if self.is_fresh => Line::Comment,
            (Line::Comment, _) => Line::Comment,
            (Line::Start | Line::Return | Line::Within, _) => {
                self.is_fresh = false;
                Line::Within
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(text: &str) -> bool {
        let mut events = Events::default();
        text.bytes().for_each(|byte| events.push(byte));
        events.is_between_events()
    }

    #[test]
    fn an_empty_line_ends_an_event_in_each_of_the_three_line_endings() {
        for text in
            ["", "data: a\n\n", "data: a\r\n\r\n", "data: a\r\r", "data: a\r\n\r", "id: 1\ndata: a\n\n\n", "\n", "\r\n"]
        {
            assert!(between(text), "{text:?}");
        }
        for text in [
            "d",
            "data: a",
            "data: a\n",
            "data: a\r\n",
            "data: a\r",
            "data: a\n\ndata",
            "data: a\n:c\n",
            "id: 1\ndata: a\n",
        ] {
            assert!(!between(text), "{text:?}");
        }
    }

    #[test]
    fn a_comment_alone_begins_no_event() {
        assert!(between(": ping\n") && between("data: a\n\n:\r\n") && between(": ping\n\n"));
        assert!(!between(": ping") && !between(": ping\ndata: a\n"));
    }

    #[test]
    fn the_type_may_have_parameters_but_no_other_ending() {
        for yes in ["text/event-stream", "Text/Event-Stream; charset=utf-8", "text/event-stream ;x"] {
            assert!(is_event_stream(yes.as_bytes()), "{yes}");
        }
        for no in ["", "text/html", "text/event-streams", "text/event-strea", "x text/event-stream"] {
            assert!(!is_event_stream(no.as_bytes()), "{no}");
        }
    }
}
