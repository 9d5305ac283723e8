//! `--env-file`: variables in the format of `python-dotenv`, which SkyPilot reads them with.

use crate::SpecError;

/// Largest file; what a process' environment can hold is not much more.
const BYTES_MAX: usize = 1 << 20;
/// Longest value after references in it are filled in (they may refer to each other and double): what
/// Linux allows in one variable.
const VALUE_BYTES_MAX: usize = 128 * 1024;
/// Most variables; each new one is looked for among those before it.
const VARIABLES_MAX: usize = 4096;

/// Reads `NAME=value` lines, in order: with `export` or without, values bare, in single quotes or in
/// double quotes (then over several lines, with escapes), comments, and `${NAME}` or
/// `${NAME:-default}` in values, which stands for an earlier line's value or else for what
/// `environment` knows.
///
/// # Errors
/// [`SpecError`] for a file that is not UTF-8 or too large, a line that is no assignment, or a name
/// without a value.
pub fn parse_env_file(
    source: &[u8],
    file_name: &str,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, SpecError> {
    let error = |line: Option<usize>, problem: String| SpecError {
        file: file_name.to_owned(),
        line,
        field: String::new(),
        problem,
    };
    if source.len() > BYTES_MAX {
        return Err(error(None, format!("the file has {} bytes, more than the {BYTES_MAX} allowed", source.len())));
    }
    let text = std::str::from_utf8(source).map_err(|_| error(None, "the file is not UTF-8".to_owned()))?;
    let mut reader = Reader { rest: text, line: 1 };
    let mut values: Vec<(String, String)> = Vec::new();
    loop {
        reader.skip(char::is_whitespace);
        if reader.rest.is_empty() {
            return Ok(values);
        }
        let line = reader.line;
        let Some(binding) = reader.binding() else {
            return Err(error(Some(line), "not an assignment like NAME=value, nor a comment".to_owned()));
        };
        let Some((name, raw)) = binding else { continue };
        let raw =
            raw.ok_or_else(|| error(Some(line), format!("{name} has no value: write {name}= for an empty one")))?;
        if raw.contains('\0') || name.contains('\0') {
            return Err(error(Some(line), format!("{name} has a NUL character, which no environment can hold")));
        }
        let known = |wanted: &str| {
            let earlier = values.iter().rev().find(|(name, _)| name == wanted);
            earlier.map(|(_, value)| value.clone()).or_else(|| environment(wanted))
        };
        let Some(value) = expand(&raw, known) else {
            return Err(error(
                Some(line),
                format!("the value of {name} has more than the {VALUE_BYTES_MAX} bytes allowed"),
            ));
        };
        match values.iter().position(|(present, _)| *present == name) {
            Some(place) => values[place].1 = value,
            None if values.len() >= VARIABLES_MAX => {
                return Err(error(Some(line), format!("more than the {VARIABLES_MAX} variables allowed")));
            }
            None => values.push((name, value)),
        }
    }
}

/// `${NAME}` and `${NAME:-default}` filled in; an unknown name without default is empty. `None` if
/// the value gets too long.
fn expand(raw: &str, known: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut expanded = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(start) = rest.find("${") {
        let body = &rest[start + 2..];
        let Some(end) = body.find('}') else { break };
        let (name, default) = body[..end].split_once(":-").unwrap_or((&body[..end], ""));
        if name.contains(':') {
            expanded.push_str(&rest[..start + 2]);
            rest = body;
            continue;
        }
        expanded.push_str(&rest[..start]);
        expanded.push_str(&known(name).unwrap_or_else(|| default.to_owned()));
        rest = &body[end + 1..];
        if expanded.len() > VALUE_BYTES_MAX {
            return None;
        }
    }
    expanded.push_str(rest);
    (expanded.len() <= VALUE_BYTES_MAX).then_some(expanded)
}

/// What is left of the file.
#[derive(Debug)]
struct Reader<'t> {
    rest: &'t str,
    line: usize,
}

/// A name, and its value if there is an equals sign.
type Assignment = (String, Option<String>);

impl<'t> Reader<'t> {
    fn take(&mut self, length: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn skip(&mut self, what: impl Fn(char) -> bool) {
        let length = self.rest.find(|character| !what(character)).unwrap_or(self.rest.len());
        self.take(length);
    }

    fn skip_blanks(&mut self) {
        self.skip(|character| character.is_whitespace() && !matches!(character, '\r' | '\n'));
    }

    fn skip_line(&mut self) {
        self.skip(|character| !matches!(character, '\r' | '\n'));
    }

    /// One line: `None` if it is wrong, `Some(None)` if it is a comment.
    fn binding(&mut self) -> Option<Option<Assignment>> {
        if let Some(after) = self.rest.strip_prefix("export")
            && after.starts_with([' ', '\t'])
        {
            self.take("export".len());
            self.skip_blanks();
        }
        if self.rest.starts_with('#') {
            self.skip_line();
            return Some(None);
        }
        let name = self.name()?;
        self.skip_blanks();
        let mut value = None;
        if self.rest.starts_with('=') {
            self.take(1);
            self.skip_blanks();
            value = Some(self.value()?);
        }
        self.skip_blanks();
        if self.rest.starts_with('#') {
            self.skip_line();
        }
        (self.rest.is_empty() || self.rest.starts_with(['\r', '\n'])).then_some(Some((name, value)))
    }

    fn name(&mut self) -> Option<String> {
        if let Some(quoted) = self.rest.strip_prefix('\'') {
            let length = quoted.find('\'').filter(|length| *length > 0)?;
            return self.take(length + 2).get(1..=length).map(str::to_owned);
        }
        let ends = |character: char| character == '=' || character == '#' || character.is_whitespace();
        let length = self.rest.find(ends).unwrap_or(self.rest.len());
        (length > 0).then(|| self.take(length).to_owned())
    }

    fn value(&mut self) -> Option<String> {
        match self.rest.chars().next() {
            Some(mark @ ('\'' | '"')) => self.quoted(mark),
            _ => {
                let length = self.rest.find(['\r', '\n']).unwrap_or(self.rest.len());
                let line = self.take(length);
                // A comment begins at a '#' after a blank.
                let comment = line.match_indices('#').find(|(at, _)| line[..*at].ends_with(char::is_whitespace));
                let value = comment.map_or(line, |(at, _)| &line[..at]);
                Some(value.trim_end().to_owned())
            }
        }
    }

    fn quoted(&mut self, mark: char) -> Option<String> {
        let mut value = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            if character == mark {
                self.take(at + 1);
                return Some(value);
            }
            if character != '\\' {
                value.push(character);
                continue;
            }
            let (_, escaped) = characters.next()?;
            let decoded = match escaped {
                '\\' | '\'' => Some(escaped),
                _ if mark == '\'' => None,
                '"' => Some('"'),
                'a' => Some('\x07'),
                'b' => Some('\x08'),
                'f' => Some('\x0c'),
                'n' => Some('\n'),
                'r' => Some('\r'),
                't' => Some('\t'),
                'v' => Some('\x0b'),
                _ => None,
            };
            match decoded {
                Some(decoded) => value.push(decoded),
                None => value.extend(['\\', escaped]),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<(String, String)>, SpecError> {
        let environment = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        parse_env_file(text.as_bytes(), "dev.env", environment)
    }

    #[test]
    fn assignments_are_read_as_python_dotenv_reads_them() {
        let text = "# comment\nA=1\nexport B = two words  # why\nC='single \\' $x'\nD=\"line\\nbreak\n2\"\nE=\n\
                    F=a#b\nG=${A}-${HOME}-${NONE}-${NONE:-d}\n'H I'=x\r\nA=3\n";
        let values = parse(text).unwrap();
        let shown: Vec<(&str, &str)> = values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("A", "3"),
                ("B", "two words"),
                ("C", "single ' $x"),
                ("D", "line\nbreak\n2"),
                ("E", ""),
                ("F", "a#b"),
                ("G", "1-/root--d"),
                ("H I", "x"),
            ]
        );
    }

    #[test]
    fn a_broken_line_is_named() {
        for (text, line) in [("A=1\n=2\n", 2), ("A='open\n", 1), ("\n\nA\n", 3), ("A='x' y\n", 1)] {
            let error = parse(text).expect_err(text);
            assert_eq!((error.line, error.file.as_str()), (Some(line), "dev.env"), "{text:?}: {error}");
        }
        assert!(parse_env_file(b"A=\xff", "x", |_| None).is_err());
    }

    #[test]
    fn references_cannot_double_a_value_without_end() {
        let mut text = format!("A0={}\n", "x".repeat(1000));
        for step in 1..30 {
            text += &format!("A{step}=${{A{}}}${{A{}}}\n", step - 1, step - 1);
        }
        assert!(parse(&text).unwrap_err().problem.contains("bytes allowed"));
    }
}
