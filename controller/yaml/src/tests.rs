use crate::*;

fn one(text: &str) -> Node {
    let mut documents = read(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error:?}"));
    assert_eq!(documents.len(), 1, "{text:?}");
    documents.remove(0)
}

fn value_of(scalar: &str) -> Value {
    one(&format!("a: {scalar}")).get("a").unwrap().value.clone()
}

fn problem(text: &str) -> (Option<usize>, String) {
    let error = read(text.as_bytes()).expect_err(text);
    (error.line, error.problem)
}

#[test]
fn integers_are_those_of_yaml_1_1() {
    let cases = [
        ("0", 0),
        ("017", 15),
        ("0_", 0),
        ("1:30", 90),
        ("190:20:30", 685_230),
        ("0b101", 5),
        ("-0b1", -1),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1__0", 10),
        ("+1", 1),
        ("-7", -7),
        ("!!int '0x1F'", 31),
    ];
    for (text, expected) in cases {
        assert_eq!(value_of(text), Value::Int(expected), "{text}");
    }
    let digits = "9".repeat(50);
    assert_eq!(value_of(&digits), Value::BigInt(digits.clone()));
    for text in ["0o17", "08", "1:60", "0b", "0x", "_1", "1,000", "12e03", "-", "1-"] {
        if text != "-" {
            assert_eq!(value_of(text), Value::String(text.to_owned()), "{text}");
        }
    }
}

#[test]
fn floats_are_those_of_yaml_1_1() {
    let cases = [
        ("1.", 1.0),
        (".5", 0.5),
        ("1_0.5e+3", 10_500.0),
        ("1:30.5", 90.5),
        ("-1.5", -1.5),
        ("+.inf", f64::INFINITY),
        ("-.INF", f64::NEG_INFINITY),
        ("1.0e-3", 0.001),
        ("!!float 3", 3.0),
        ("!!float 1e3", 1000.0),
    ];
    for (text, expected) in cases {
        assert_eq!(value_of(text), Value::Float(expected), "{text}");
    }
    assert!(matches!(value_of(".nan"), Value::Float(value) if value.is_nan()));
    for text in ["1e3", "1.0e3", "-.5", "._5", "1.5e+", "+.nan", "1:30.5e+1", "."] {
        assert_eq!(value_of(text), Value::String(text.to_owned()), "{text}");
    }
}

#[test]
fn words_are_booleans_and_null_by_yaml_1_1() {
    for text in ["yes", "On", "TRUE"] {
        assert_eq!(value_of(text), Value::Bool(true), "{text}");
    }
    for text in ["no", "Off", "FALSE"] {
        assert_eq!(value_of(text), Value::Bool(false), "{text}");
    }
    for text in ["", "~", "null", "NULL"] {
        assert_eq!(value_of(text), Value::Null, "{text}");
    }
    for text in ["y", "n", "yEs", "nULL", "'yes'", "\"~\""] {
        assert!(matches!(value_of(text), Value::String(_)), "{text}");
    }
}

#[test]
fn dates_read_as_python_shows_them_and_impossible_ones_are_errors() {
    let cases = [
        ("2024-01-02", "2024-01-02"),
        ("2024-1-2 3:04:05", "2024-01-02 03:04:05"),
        ("2024-01-02T03:04:05.5Z", "2024-01-02 03:04:05.500000+00:00"),
        ("2024-01-02 03:04:05 -5", "2024-01-02 03:04:05-05:00"),
    ];
    for (text, expected) in cases {
        assert_eq!(value_of(text), Value::Timestamp(expected.to_owned()), "{text}");
    }
    assert_eq!(value_of("2024-1-2"), Value::String("2024-1-2".to_owned()));
    assert!(problem("a: 2024-13-01").1.contains("no date"), "{:?}", problem("a: 2024-13-01"));
    assert!(problem("a: 2023-02-29").1.contains("no date"));
}

#[test]
fn a_merge_key_brings_in_what_the_mapping_itself_does_not_say() {
    let document = one("base: &b {x: 1, y: 2}\nuse:\n  y: 3\n  <<: *b\n");
    let used = document.get("use").unwrap();
    assert_eq!(used.get("x").unwrap().value, Value::Int(1));
    assert_eq!(used.get("y").unwrap().value, Value::Int(3));
    let listed = one("<<: [{a: 1}, {a: 2, b: 2}]");
    assert_eq!((&listed.get("a").unwrap().value, &listed.get("b").unwrap().value), (&Value::Int(1), &Value::Int(2)));
    assert!(problem("<<: [1]").1.contains("merges a mapping"));
    assert!(problem("a: <<").1.contains("as a key alone"));
    assert_eq!(one("= : 1").get("=").unwrap().value, Value::Int(1));
}

#[test]
fn a_key_written_twice_is_an_error_that_names_both_lines() {
    let (line, text) = problem("run: a\nb: 1\nrun: c\n");
    assert_eq!(line, Some(3));
    assert!(text.contains("'run'") && text.contains("line 3") && text.contains("line 1"), "{text}");
    let same_to_python = one("1: a\nyes: b");
    assert_eq!(same_to_python.entries().unwrap().len(), 1);
    assert_eq!(same_to_python.entries().unwrap()[0].value.as_str(), Some("b"));
    assert!(problem("<<: {a: 1}\n<<: {b: 1}").1.contains("Duplicate key '<<'"));
}

#[test]
fn nodes_keep_their_line_and_column() {
    let document = one("a:\n  - x\n  - b: 2\n");
    let items = document.get("a").unwrap().items().unwrap();
    assert_eq!((items[0].line, items[0].column), (2, 5));
    let b = items[1].get("b").unwrap();
    assert_eq!((b.line, b.column), (3, 8));
}

#[test]
fn documents_come_in_order_and_an_empty_file_has_none() {
    assert_eq!(read(b"").unwrap().len(), 0);
    assert_eq!(read(b"# only a comment\n").unwrap().len(), 0);
    let documents = read(b"a: 1\n---\n---\nb: 2\n...\n").unwrap();
    assert_eq!(documents.len(), 3);
    assert!(documents[1].is_null());
}

#[test]
fn text_must_be_printable_utf_8() {
    assert_eq!(one("\u{feff}a: 1").get("a").unwrap().value, Value::Int(1));
    let latin1 = read(b"a: 1\nb: \xe9\n").unwrap_err();
    assert!(latin1.line == Some(2) && latin1.problem.contains("not UTF-8"), "{latin1:?}");
    assert!(read(b"\xff\xfea\0").unwrap_err().problem.contains("UTF-16"));
    for control in ["a: \0", "a: \u{7}", "a: \u{9f}", "a: \u{ffff}"] {
        assert!(problem(control).1.contains("not allowed"), "{control:?}");
    }
}

#[test]
fn tags_that_would_run_code_or_mean_nothing_are_refused() {
    for text in ["a: !foo bar", "a: !!python/object/apply:os.getcwd []", "!!omap []", "a: !!map [x]", "a: !!seq x"] {
        assert!(problem(text).1.contains("not supported"), "{text}: {:?}", problem(text));
    }
    assert_eq!(value_of("!!str 5"), Value::String("5".to_owned()));
    assert_eq!(value_of("! 12"), Value::Int(12));
    assert_eq!(value_of("!!binary aGk="), Value::Binary(b"hi".to_vec()));
    assert!(problem("a: !!binary aGk").1.contains("base64"));
    assert!(matches!(value_of("!!set {x, y}"), Value::Set(items) if items.len() == 2));
}

#[test]
fn a_tag_directly_before_a_comma_is_an_error_and_an_exclamation_mark_in_text_is_not() {
    let (line, text) = problem("x: 1\na: [!!str, b]\n");
    assert!(line == Some(2) && text.contains("followed by a space"), "{text}");
    assert!(problem("{!x,*").1.contains("not valid YAML"));
    assert_eq!(value_of("hello !you, there"), Value::String("hello !you, there".to_owned()));
    assert_eq!(one("a: ['!b, c', d]  # !e,\n").get("a").unwrap().items().unwrap().len(), 2);
}

#[test]
fn an_alias_needs_a_finished_anchor_before_it() {
    assert!(problem("a: *x").1.contains("no anchor"));
    assert!(problem("a: &x [*x]").1.contains("within its own anchor"));
    assert!(problem("a: &x 1\nb: &x 2").1.contains("defined twice"));
    assert!(problem("a: &x 1\n---\nb: *x").1.contains("no anchor"));
}

#[test]
fn keys_must_be_scalars() {
    assert!(problem("? [a, b]\n: 1").1.contains("cannot be a key"));
    assert!(problem("{{a: 1}: 2}").1.contains("cannot be a key"));
}

#[test]
fn aliases_of_aliases_stop_at_the_limit_of_values() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let alias = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", "));
    }
    assert!(problem(&text).1.contains("more than 100000 values"), "{:?}", problem(&text));
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(900_000), vec!["*a"; 20].join(", "));
    assert!(problem(&long).1.contains("bytes of text"), "{:?}", problem(&long).1);
}

#[test]
fn nesting_stops_at_the_limit_of_depth() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(read(nested(DEPTH_MAX).as_bytes()).is_ok());
    assert!(problem(&nested(DEPTH_MAX + 1)).1.contains("levels deep"));
    assert!(problem(&"[".repeat(100_000)).1.contains("levels deep"));
    // Through aliases as well: each level holds the one before.
    let mut text = "a0: &a0 [x]\n".to_owned();
    for level in 1..100 {
        text += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
    }
    assert!(problem(&text).1.contains("levels deep"));
}

#[test]
fn a_file_above_the_size_limit_is_refused() {
    let error = read(&vec![b'#'; INPUT_BYTES_MAX + 1]).unwrap_err();
    assert!(error.line.is_none() && error.problem.contains("more than the 1048576 allowed"), "{error:?}");
}

#[test]
fn a_block_scalar_may_end_with_the_file() {
    for (text, expected) in
        [("|\n  x", "x"), ("|2\n  x\n  ", "x\n"), (">-\n  x\n  y", "x y"), ("|+\n  x\n\n", "x\n\n"), ("|+\n  x", "x")]
    {
        assert_eq!(value_of(text), Value::String(expected.to_owned()), "{text:?}");
    }
}

#[test]
fn broken_syntax_names_its_line() {
    for (text, line) in [("a: 1\n b: 2", 2), ("a: {b", 1), ("a: 1\nrun: @x", 2), ("a: 1\nrun: %x", 2), ("a: b: c", 1)] {
        let (found, problem) = problem(text);
        assert!(problem.contains("not valid YAML"), "{text:?}: {problem}");
        assert!(found >= Some(line), "{text:?}: {found:?}");
    }
}

#[test]
fn python_shows_values_its_own_way() {
    let cases = [
        ("yes", "True"),
        ("~", "None"),
        ("1.10", "1.1"),
        ("1.0", "1.0"),
        ("1.0e+16", "1e+16"),
        ("1.5e-7", "1.5e-07"),
        ("100000.0", "100000.0"),
        ("[1, a]", "[1, 'a']"),
        ("{a: 1}", "{'a': 1}"),
        ("[\"it's\"]", "[\"it's\"]"),
        ("2024-01-02", "2024-01-02"),
        ("[2024-01-02]", "[datetime.date(2024, 1, 2)]"),
        (".inf", "inf"),
        ("!!binary aGkn", "b\"hi'\""),
        ("[\"a\\tb\\\\\\u00a0\"]", "['a\\tb\\\\\\xa0']"),
    ];
    for (text, expected) in cases {
        assert_eq!(value_of(text).to_python_string(), expected, "{text}");
    }
}
