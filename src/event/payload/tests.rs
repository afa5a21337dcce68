//! Payloads: what is equal, what is kept, what is refused.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::*;

fn same(a: &str, b: &str) -> bool {
    read(a).unwrap().encoding == read(b).unwrap().encoding
}

#[test]
fn equal_values_are_equal() {
    for (a, b) in [
        (r#"{"a":1,"b":[true,null]}"#, "{ \"b\" : [ true , null ],\n\t\"a\":1 }"),
        (r#""\u0041\/\ud83d\ude00""#, r#""A/😀""#),
        (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
        (r#"{"\u0061":1}"#, r#"{"a":1}"#),
        ("12345678901234567890.10", " 12345678901234567890.10 "),
    ] {
        assert!(same(a, b), "{a} {b}");
    }
    let long = "x".repeat(500);
    assert!(same(
        &format!(r#"{{"k":["{long}"],"z":0}}"#),
        &format!(r#"{{"z":0, "k":["{long}"]}}"#)
    ));
}

#[test]
fn other_values_are_other() {
    for (a, b) in [
        ("1", "1.0"),
        ("1", "\"1\""),
        ("12345678901234567890", "12345678901234567891"),
        ("[]", "{}"),
        ("[[]]", "[]"),
        ("[1,2]", "[2,1]"),
        ("[1,2]", "[12]"),
        (r#"["a","b"]"#, r#"["ab"]"#),
        (r#"{"a":"b"}"#, r#"{"b":"a"}"#),
        (r#"{"a":{"b":1}}"#, r#"{"a":{},"b":1}"#),
        ("null", "{}"),
        ("null", "\"null\""),
        (r#""a""#, r#""a\u0000""#),
    ] {
        assert!(!same(a, b), "{a} {b}");
    }
    let long = "x".repeat(500);
    assert!(!same(&format!(r#"["{long}"]"#), &format!(r#"["{long}y"]"#)));
}

#[test]
fn text_keeps_all_but_white_space() {
    let given = "{ \"n\" : 1.2300e+10 , \"s\": \" a\\u0000\\n b \" , \"a\" : [ ] }";
    assert_eq!(read(given).unwrap().text, r#"{"n":1.2300e+10,"s":" a\u0000\n b ","a":[]}"#);
    assert_eq!(read(" -0 ").unwrap().text, "-0");
    assert_eq!(read(r#"{"a":1,"a":2}"#).unwrap().text, r#"{"a":1,"a":2}"#);
}

#[test]
fn refuses_lone_surrogates_and_depth() {
    for json in [r#""\ud800""#, r#"["\udc00"]"#, r#"{"\ud800":1}"#, r#""\ud800\u0041""#] {
        assert_eq!(read(json).unwrap_err(), PayloadError::LoneSurrogate, "{json}");
    }
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert!(read(&nested(PAYLOAD_DEPTH_MAX)).is_ok());
    assert_eq!(read(&nested(PAYLOAD_DEPTH_MAX + 1)).unwrap_err(), PayloadError::TooDeep);
}

/// Payloads of every kind.
fn payloads() -> Vec<String> {
    let mut payloads: Vec<String> = [
        "null",
        "-0.10e+5",
        r#""""#,
        r#""a\"\\\/\b\f\n\r\t\u0000\u00e9\ud83d\ude00é😀""#,
        "[]",
        "{}",
        "[[],{},[{}]]",
        r#"{"b":[true,null],"a":{"d":1.0,"c":"x"}}"#,
        r#"{"a":1,"b":2,"a":{"a":3,"a":4},"\u0061":5}"#,
        r#"{"":0,"a":1,"aa":2,"b":3,"B":4,"\ud83d\ude00":5,"\uffff":6,"é":7,"~":8}"#,
        " { \"k\" : [ 1 , 2 ] }\n",
    ]
    .map(str::to_owned)
    .into();
    let long = "x".repeat(70);
    payloads.push(format!(r#"["{long}","{}"]"#, "y".repeat(5000)));
    payloads
        .push(format!(r#"{{"{long}":1,"{long}\n":{{"z":"{long}"}},"{}":2}}"#, "é".repeat(3000)));
    let numbers: Vec<String> = (0..2000).map(|number| number.to_string()).collect();
    payloads.push(format!("[{}]", numbers.join(",")));
    let members: Vec<String> =
        (0..2000).map(|number| format!(r#""{}":{number}"#, number * 7919 % 1013)).collect();
    payloads.push(format!("{{{}}}", members.join(",")));
    payloads.push(format!(r#"{}{{"a":1}}{}"#, r#"{"k":["#.repeat(200), "]}".repeat(200)));
    payloads
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is stored is compared with what comes: an encoding never changes.
#[test]
fn encodings_stay_as_they_are_stored() {
    let encodings = [
        "6e6e756c6c",
        "6e2d302e3130652b35",
        "73",
        "7361225c2f080c0a0d0900c3a9f09f9880c3a9f09f9880",
        "61",
        "6f",
        "610161016f0361016f",
        "6f01610d6f01630273780164046e312e3001620d61056e74727565056e6e756c6c",
        "6f0161026e350162026e32",
        "6f00026e300142026e340161026e31026161026e320162026e33017e026e3802c3a9026e3703efbfbf026e3604f09f9880026e35",
        "6f016b0761026e31026e32",
        "688655046fd7121caa4c83d47640cec3c971de035a5697952ae72d6d22959652b0",
        "687f9ffdc897d78c6564471bbf0670cfce01ea7507698c49febc6e6351a2a1c6b2",
        "681fafcf92569b4b7a9a4e9e4af3b6e8b64314a8b728509b0480b59005856f08e8",
        "6895cd91df266e9a9411ff0048bf27765838ae6e498fd6c233e128052388c7eea7",
        "6f016b2f612d6f016b2961276f016b23612168acdbb15eef8a1fb849ae53d3113397a4a488ddbd55dfbb6b5a0a9a8cae2f3390",
    ];
    let payloads = payloads();
    assert_eq!(payloads.len(), encodings.len());
    for (payload, encoding) in payloads.iter().zip(encodings) {
        assert_eq!(hex(&read(payload).unwrap().encoding), encoding, "{payload:.200}");
    }
}

/// The rule, with as much memory as it takes.
fn plainly(json: &str) -> Vec<u8> {
    let part = |part: &[u8]| [Length::of(part).as_bytes(), part].concat();
    let mut encoding = Vec::new();
    match json.as_bytes()[0] {
        b'{' => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(json).unwrap();
            encoding.push(b'o');
            for (key, value) in members {
                encoding.extend(part(key.as_bytes()));
                encoding.extend(part(&plainly(value.get())));
            }
        }
        b'[' => {
            let elements: Vec<&RawValue> = serde_json::from_str(json).unwrap();
            encoding.push(b'a');
            encoding.extend(elements.iter().flat_map(|one| part(&plainly(one.get()))));
        }
        b'"' => {
            encoding.push(b's');
            encoding.extend(serde_json::from_str::<String>(json).unwrap().into_bytes());
        }
        _ => {
            encoding.push(b'n');
            encoding.extend(json.bytes());
        }
    }
    if encoding.len() <= ENCODING_BYTES_MAX {
        return encoding;
    }
    [&b"h"[..], &Sha256::digest(&encoding)].concat()
}

/// Numbers that look like any, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }

    fn string(&mut self) -> String {
        const PIECES: [&str; 14] = [
            "a",
            "b",
            "é",
            "😀",
            "\\n",
            "\\\"",
            "\\\\",
            "\\/",
            "\\u0061",
            "\\u0000",
            "\\ud83d\\ude00",
            "\\uFFFF",
            "\\u00e9",
            " ",
        ];
        let pieces = self.below(4);
        let mut string: String =
            (0..pieces).map(|_| PIECES[self.below(PIECES.len() as u64) as usize]).collect();
        if self.below(20) == 0 {
            string = string.repeat(100);
        }
        format!("\"{string}\"")
    }

    fn value(&mut self, depth: u64) -> String {
        let members = self.below(6);
        match self.below(if depth == 0 { 2 } else { 5 }) {
            0 => ["0", "-1.50", "1e9", "true", "null"][self.below(5) as usize].to_owned(),
            1 => self.string(),
            2 => {
                let elements: Vec<_> = (0..members).map(|_| self.value(depth - 1)).collect();
                format!("[{}]", elements.join(" ,"))
            }
            _ => {
                let members = (0..members).map(|_| {
                    let key = self.string();
                    format!("{key} : {}", self.value(depth - 1))
                });
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }
        }
    }
}

#[test]
fn encodings_are_those_of_the_rule() {
    for payload in payloads() {
        assert_eq!(read(&payload).unwrap().encoding, plainly(payload.trim()), "{payload:.200}");
    }
    let mut random = Random(1);
    for _ in 0..5_000 {
        let payload = random.value(4);
        assert_eq!(read(&payload).unwrap().encoding, plainly(&payload), "{payload}");
    }
}
