use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::tz::{TimeZone, offset};
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
struct Session {
    time: u64,
    pid: Option<u64>,
    comm: Vec<u8>,
    local: IpAddr,
    duration: Fixed,
    lower_bound: bool,
    mapped: bool,
}

const fn column(
    name: &'static str,
    header: &'static str,
    (width, align): (usize, Align),
    kind: Kind,
    get: for<'a> fn(&'a Session) -> Value<'a>,
) -> Column<Session> {
    Column {
        name,
        header,
        width,
        wide: None,
        align,
        kind,
        doc: "",
        get,
    }
}

static EVENT: Column<Session> = column("event", "EVENT", (7, Align::Left), Kind::String, |_| {
    Value::Text("tcplife")
});
static TS: Column<Session> = column("ts", "TS", (27, Align::Left), Kind::String, |row| {
    Value::Rfc3339(row.time)
});
static TIME: Column<Session> = column("time", "TIME", (8, Align::Left), Kind::String, |row| {
    Value::Clock(row.time)
});
static PID: Column<Session> = column("pid", "PID", (7, Align::Left), Kind::Integer, |row| {
    row.pid.map_or(Value::Null, Value::Uint)
});
static COMM: Column<Session> = column("comm", "COMM", (15, Align::Left), Kind::String, |row| {
    Value::Untrusted(&row.comm)
});
static LADDR: Column<Session> = Column {
    wide: Some(39),
    ..column("laddr", "LADDR", (15, Align::Left), Kind::String, |row| {
        Value::Ip(row.local)
    })
};
static MS: Column<Session> = column("ms", "MS", (9, Align::Right), Kind::Number, |row| match row
    .lower_bound
{
    true => Value::AtLeast(row.duration),
    false => Value::Fixed(row.duration),
});
static MAPPED: Column<Session> =
    column("mapped", "MAPPED", (6, Align::Left), Kind::Boolean, |row| {
        Value::Bool(row.mapped)
    });

const ALL: [&Column<Session>; 8] = [&EVENT, &TS, &TIME, &PID, &COMM, &LADDR, &MS, &MAPPED];
const ROW: [&Column<Session>; 5] = [&TIME, &PID, &COMM, &LADDR, &MS];

fn writer(format: Format, columns: &[&'static Column<Session>]) -> Writer<Session> {
    let mut writer = Writer::new(format, columns.to_vec());
    writer.times = Times::in_zone(TimeZone::fixed(offset(2)));
    writer
}

fn session() -> Session {
    Session {
        time: 1_795_299_005_123_456_789,
        pid: Some(4242),
        comm: b"curl".to_vec(),
        local: Ipv4Addr::new(10, 0, 0, 7).into(),
        duration: Fixed {
            units: 1_234_565,
            scale: 3,
            shown: 2,
        },
        lower_bound: false,
        mapped: false,
    }
}

fn sessions() -> Vec<Session> {
    let long = Ipv6Addr::new(
        0x2001, 0xdb8, 0x1234, 0x5678, 0x9abc, 0xdef0, 0x1234, 0x5678,
    );
    vec![
        session(),
        Session {
            pid: None,
            comm: vec![],
            lower_bound: true,
            ..session()
        },
        Session {
            pid: Some(4_194_304),
            comm: b"\x1b[2J,\"\\\n\xff\xe2\x80\xae".to_vec(),
            local: long.into(),
            duration: Fixed {
                units: 5,
                scale: 3,
                shown: 2,
            },
            mapped: true,
            ..session()
        },
        Session {
            comm: "日本 ß".into(),
            local: Ipv6Addr::LOCALHOST.into(),
            ..session()
        },
    ]
}

fn written(format: Format, columns: &[&'static Column<Session>], rows: &[Session]) -> String {
    let mut writer = writer(format, columns);
    writer.header();
    rows.iter().for_each(|row| writer.row(row));
    String::from_utf8(writer.bytes().to_vec()).unwrap()
}

#[test]
fn table() {
    insta::assert_snapshot!(written(Format::Table { wide: false }, &ROW, &sessions()), @r##"
    TIME     PID     COMM            LADDR                  MS
    00:10:05 4242    curl            10.0.0.7          1234.57
    00:10:05 -                       10.0.0.7         >1234.57
    00:10:05 4194304 \x1B[2J,"\x5C\x0A\xFF\u{202E} 2001:db8:1234:5678:9abc:def0:1234:5678      0.01
    00:10:05 4242    日本 ß          ::1               1234.57
    "##);
}

#[test]
fn wide_table() {
    insta::assert_snapshot!(written(Format::Table { wide: true }, &ROW, &sessions()), @r##"
    TIME     PID     COMM            LADDR                                          MS
    00:10:05 4242    curl            10.0.0.7                                  1234.57
    00:10:05 -                       10.0.0.7                                 >1234.57
    00:10:05 4194304 \x1B[2J,"\x5C\x0A\xFF\u{202E} 2001:db8:1234:5678:9abc:def0:1234:5678       0.01
    00:10:05 4242    日本 ß          ::1                                       1234.57
    "##);
}

#[test]
fn csv() {
    insta::assert_snapshot!(written(Format::Csv, &ALL, &sessions()), @r##"
    EVENT,TS,TIME,PID,COMM,LADDR,MS,MAPPED
    tcplife,2026-11-21T22:10:05.123456Z,00:10:05,4242,curl,10.0.0.7,1234.565,false
    tcplife,2026-11-21T22:10:05.123456Z,00:10:05,,,10.0.0.7,1234.565,false
    tcplife,2026-11-21T22:10:05.123456Z,00:10:05,4194304,"\x1B[2J,""\x5C\x0A\xFF\u{202E}",2001:db8:1234:5678:9abc:def0:1234:5678,0.005,true
    tcplife,2026-11-21T22:10:05.123456Z,00:10:05,4242,日本 ß,::1,1234.565,false
    "##);
}

#[test]
fn json() {
    insta::assert_snapshot!(written(Format::Json, &ALL, &sessions()), @r##"
    {"event":"tcplife","ts":"2026-11-21T22:10:05.123456Z","time":"00:10:05","pid":4242,"comm":"curl","laddr":"10.0.0.7","ms":1234.565,"mapped":false}
    {"event":"tcplife","ts":"2026-11-21T22:10:05.123456Z","time":"00:10:05","comm":"","laddr":"10.0.0.7","ms":1234.565,"mapped":false}
    {"event":"tcplife","ts":"2026-11-21T22:10:05.123456Z","time":"00:10:05","pid":4194304,"comm":"\u001b[2J,\"\\\u000a�\u202e","laddr":"2001:db8:1234:5678:9abc:def0:1234:5678","ms":0.005,"mapped":true}
    {"event":"tcplife","ts":"2026-11-21T22:10:05.123456Z","time":"00:10:05","pid":4242,"comm":"日本 ß","laddr":"::1","ms":1234.565,"mapped":false}
    "##);
}

#[test]
fn objects_between_rows() {
    let mut writer = writer(Format::Json, &[&PID]);
    writer.row(&session());
    writer.object(&[
        ("event", Value::Text("lost")),
        ("ring_full", Value::Uint(3)),
    ]);
    writer.object(&[("pid", Value::Null)]);
    insta::assert_snapshot!(str::from_utf8(writer.bytes()).unwrap(), @r##"
    {"pid":4242}
    {"event":"lost","ring_full":3}
    {}
    "##);
    writer.clear();
    assert_eq!(writer.bytes(), b"");
}

#[test]
fn a_row_of_one_unknown_field_is_still_a_csv_record() {
    let unknown = Session {
        pid: None,
        ..session()
    };
    assert_eq!(written(Format::Csv, &[&PID], &[unknown]), "PID\n\"\"\n");
}

#[test]
fn a_flag_is_absent_in_json_unless_it_is_set_and_never_empty_in_csv() {
    static OLDER: Column<Session> =
        column("older", "OLDER", (5, Align::Left), Kind::Boolean, |row| {
            Value::Flag(row.lower_bound)
        });
    let older = Session {
        lower_bound: true,
        ..session()
    };
    let rows = [session(), older];
    let written = |format| written(format, &[&OLDER], &rows);
    assert_eq!(written(Format::Json), "{}\n{\"older\":true}\n");
    assert_eq!(written(Format::Csv), "OLDER\nfalse\ntrue\n");
    assert_eq!(written(Format::Table { wide: false }), "OLDER\n-\ntrue\n");
}

#[test]
fn numbers_are_rounded_half_up() {
    let shown = |units, scale, shown| {
        let mut out = Vec::new();
        text::fixed(
            &mut out,
            text::rounded(Fixed {
                units,
                scale,
                shown,
            }),
        );
        String::from_utf8(out).unwrap()
    };
    assert_eq!(shown(1_994, 3, 2), "1.99");
    assert_eq!(shown(1_995, 3, 2), "2.00");
    assert_eq!(shown(1_499, 3, 0), "1");
    assert_eq!(shown(1_500, 3, 0), "2");
    assert_eq!(shown(7, 0, 2), "7");
    assert_eq!(shown(7, 3, 3), "0.007");
    assert_eq!(shown(u64::MAX, 3, 2), "18446744073709551.62");
    assert_eq!(shown(u64::MAX, 255, 255).len(), 2 + 255);
}

#[test]
fn times_follow_the_second() {
    let mut times = Times::in_zone(TimeZone::fixed(offset(-5)));
    let mut shown = |ns| {
        let mut out = times.clock(ns).to_vec();
        out.push(b' ');
        times.rfc3339(&mut out, ns);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(shown(0), "19:00:00 1970-01-01T00:00:00.000000Z");
    assert_eq!(shown(999_999_999), "19:00:00 1970-01-01T00:00:00.999999Z");
    assert_eq!(shown(1_000_001_000), "19:00:01 1970-01-01T00:00:01.000001Z");
    assert_eq!(
        shown(0),
        "19:00:00 1970-01-01T00:00:00.000000Z",
        "also backwards"
    );
    assert_eq!(shown(u64::MAX), "18:34:33 2554-07-21T23:34:33.709551Z");
}

#[test]
fn what_could_deceive_a_reader_is_escaped() {
    let escaped = |bytes: &[u8]| {
        let (mut terminal, mut json) = (Vec::new(), Vec::new());
        escape::terminal(&mut terminal, bytes);
        escape::json(&mut json, bytes);
        (
            String::from_utf8(terminal).unwrap(),
            String::from_utf8(json).unwrap(),
        )
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(escaped(b"a\"b c"), pair("a\"b c", r#""a\"b c""#));
    assert_eq!(escaped(b"\\x1B"), pair(r"\x5Cx1B", r#""\\x1B""#));
    assert_eq!(
        escaped(b"\x1b\n\x7f"),
        pair(r"\x1B\x0A\x7F", r#""\u001b\u000a\u007f""#)
    );
    assert_eq!(
        escaped("\u{9b}".as_bytes()),
        pair(r"\u{009B}", r#""\u009b""#)
    );
    assert_eq!(
        escaped(b"\x9b\xe2\x82"),
        pair(r"\x9B\xE2\x82", "\"\u{fffd}\u{fffd}\"")
    );
    assert_eq!(
        escaped("\u{e0041}".as_bytes()),
        pair(r"\u{E0041}", r#""\udb40\udc41""#)
    );

    let ranges = [
        0x80..=0x9f,
        0x200b..=0x200f,
        0x2028..=0x202e,
        0x2060..=0x206f,
        0xfff9..=0xfffb,
    ];
    let single = [0xad, 0x61c, 0x180e, 0xfeff];
    for c in ranges
        .into_iter()
        .flatten()
        .chain(single)
        .filter_map(char::from_u32)
    {
        let code = c as u32;
        let expected = (format!("\\u{{{code:04X}}}"), format!("\"\\u{code:04x}\""));
        assert_eq!(escaped(c.to_string().as_bytes()), expected);
    }
}

/// Bytes that are often text, and often the worst of it.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..32),
        "\\PC{0,15}".prop_map(String::into_bytes),
        "[\\x00-\\x1f\\x7f-\\x9f\\u{200b}-\\u{206f}\\\\\",=;' a-c]{0,15}"
            .prop_map(String::into_bytes),
    ]
}

prop_compose! {
    fn any_session()(
        time: u64,
        pid: Option<u64>,
        comm in bytes(),
        local: IpAddr,
        (units, scale, shown) in (any::<u64>(), 0..=9_u8, 0..=9_u8),
        lower_bound: bool,
        mapped: bool,
    ) -> Session {
        let duration = Fixed { units, scale, shown };
        Session { time, pid, comm, local, duration, lower_bound, mapped }
    }
}

/// Undoes `escape::terminal`.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        bytes.extend(before.as_bytes());
        if let Some(code) = escape.strip_prefix("u{") {
            let (code, after) = code.split_once('}').unwrap();
            let c = char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap();
            bytes.extend(c.to_string().as_bytes());
            rest = after;
        } else {
            bytes.push(u8::from_str_radix(&escape[1..3], 16).unwrap());
            rest = &escape[3..];
        }
    }
    bytes.extend(rest.as_bytes());
    bytes
}

fn terminal(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    escape::terminal(&mut out, bytes);
    String::from_utf8(out).unwrap()
}

proptest! {
    #[test]
    fn escaping_loses_nothing(bytes in bytes()) {
        prop_assert_eq!(unescaped(&terminal(&bytes)), bytes);
    }

    #[test]
    fn a_row_is_one_line_without_controls(row in any_session(), wide: bool) {
        for format in [Format::Table { wide }, Format::Csv, Format::Json] {
            let mut writer = writer(format, &ALL);
            writer.row(&row);
            let text = str::from_utf8(writer.bytes()).unwrap();
            let line = text.strip_suffix('\n').unwrap();
            prop_assert!(!line.chars().any(char::is_control), "{line:?}");
            prop_assert!(!line.ends_with(' ') && !line.is_empty());
        }
    }

    #[test]
    fn csv_reads_back(rows in prop::collection::vec(any_session(), 1..8)) {
        let text = written(Format::Csv, &ALL, &rows);
        let mut reader = ::csv::Reader::from_reader(text.as_bytes());
        prop_assert_eq!(reader.headers().unwrap(), &ALL.map(|c| c.header)[..]);
        let records: Vec<_> = reader.records().map(Result::unwrap).collect();
        prop_assert_eq!(records.len(), rows.len());
        for (record, row) in records.iter().zip(&rows) {
            prop_assert_eq!(&record[3], row.pid.map_or(String::new(), |pid| pid.to_string()));
            prop_assert_eq!(unescaped(&record[4]), &row.comm[..]);
            prop_assert_eq!(record[5].parse(), Ok(row.local));
            let digits = record[6].replace('.', "");
            prop_assert_eq!(digits.parse(), Ok(row.duration.units));
            prop_assert_eq!(&record[7], row.mapped.to_string());
        }
    }

    #[test]
    fn json_reads_back(row in any_session()) {
        let text = written(Format::Json, &ALL, std::slice::from_ref(&row));
        let object: serde_json::Map<_, _> = serde_json::from_str(&text).unwrap();
        for column in ALL {
            let Some(value) = object.get(column.name) else {
                prop_assert_eq!((column.get)(&row), Value::Null);
                continue;
            };
            let as_declared = match column.kind {
                Kind::Boolean => value.is_boolean(),
                Kind::Integer => value.is_u64(),
                Kind::Number => value.is_number(),
                Kind::String => value.is_string(),
            };
            prop_assert!(as_declared, "{}: {value}", column.name);
        }
        prop_assert_eq!(object.get("pid").and_then(|pid| pid.as_u64()), row.pid);
        prop_assert_eq!(object["comm"].as_str(), Some(&*String::from_utf8_lossy(&row.comm)));
        prop_assert_eq!(object["laddr"].as_str(), Some(&*row.local.to_string()));
        prop_assert_eq!(object["mapped"].as_bool(), Some(row.mapped));
        let ts: jiff::Timestamp = object["ts"].as_str().unwrap().parse().unwrap();
        prop_assert_eq!(ts.as_microsecond(), (row.time / 1000) as i64);
    }

    #[test]
    fn columns_of_a_table_line_up(comm in "[a-z]{0,15}", pid in 0..9_999_999_u64) {
        let row = Session { comm: comm.clone().into(), pid: Some(pid), ..session() };
        let line = written(Format::Table { wide: false }, &ROW, &[row]);
        let (header, row) = line.split_once('\n').unwrap();
        let at = header.find("LADDR").unwrap();
        prop_assert_eq!(&row[at..at + 8], "10.0.0.7");
        prop_assert_eq!(row[header.find("COMM").unwrap()..at].trim_end(), comm);
    }
}
