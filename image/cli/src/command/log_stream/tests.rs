use super::*;
use crate::testing::{Answer, TestHome, refusal};

/// Shows the log `/v1/logs/controller` of a controller that answers so, and returns what was asked of it too.
fn shown(
    stream: impl Fn(Stream<'_>) -> Stream<'_>,
    mut answer: impl FnMut(&str, usize) -> Answer + Send + 'static,
) -> (Result<(), LogError>, String, Vec<String>) {
    let test_home = TestHome::new();
    let mut count = 0;
    let controller = test_home.controller(move |what| {
        count += 1;
        answer(what, count)
    });
    let client = Client::new(test_home.context.home.control_socket());
    let mut out = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let path = "/v1/logs/controller";
    let stream = stream(Stream { client: &client, path, tail: None, follow: true, may_end: true });
    let outcome = runtime.block_on(stream.show(&mut out));
    (outcome, String::from_utf8(out).unwrap(), controller.asked())
}

#[test]
fn a_log_that_breaks_off_goes_on_where_it_was() {
    let (outcome, text, asked) = shown(
        |stream| stream,
        |_, count| match count {
            1 => Answer::CutOff("one\ntwo\n".into()),
            2 => Answer::Text("one\ntwo\nthree\n".into()),
            _ => Answer::Text("one\ntwo\nthree\nfour\n".into()),
        },
    );
    outcome.unwrap();
    assert_eq!(text, "one\ntwo\nthree\nfour\n");
    let path = "GET /v1/logs/controller";
    assert_eq!(asked, [format!("{path}?follow=true"), path.to_owned(), format!("{path}?follow=true")]);
}

#[test]
fn the_tail_of_a_log_goes_on_where_it_was() {
    let (outcome, text, _) = shown(
        |stream| Stream { tail: Some(1), ..stream },
        |_, count| match count {
            1 => Answer::CutOff("two\n".into()),
            2 => Answer::Text("one\ntwo\nthree\n".into()),
            _ => Answer::Text("one\ntwo\nthree\n".into()),
        },
    );
    outcome.unwrap();
    assert_eq!(text, "two\nthree\n");
}

#[test]
fn a_log_that_was_rotated_meanwhile_goes_on_with_what_there_is() {
    let (outcome, text, _) = shown(
        |stream| stream,
        |_, count| match count {
            1 => Answer::CutOff("one\ntwo\n".into()),
            _ => Answer::Text("nine\n".into()),
        },
    );
    outcome.unwrap();
    assert_eq!(text, "one\ntwo\nnine\n");
}

#[test]
fn a_controller_that_is_away_before_anything_was_shown_is_asked_again() {
    let (outcome, text, asked) = shown(
        |stream| Stream { tail: Some(3), follow: false, ..stream },
        |_, count| if count == 1 { Answer::HangUp } else { Answer::Text("one\n".into()) },
    );
    outcome.unwrap();
    assert_eq!(text, "one\n");
    assert_eq!(asked, ["GET /v1/logs/controller?follow=false&tail=3"; 2]);
}

#[test]
fn a_refusal_is_told_and_not_repeated() {
    let (outcome, _, asked) = shown(|stream| stream, |_, _| refusal(404, "there is no log"));
    assert_eq!(outcome.unwrap_err().to_string(), "there is no log");
    assert_eq!(asked.len(), 1);
}
