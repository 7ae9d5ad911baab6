use proptest::prelude::*;

use super::{
    Level::{Debug, Error, Fatal, Info, Warn},
    *,
};

#[test]
fn levels_are_found_where_programs_write_them() {
    for (line, expected) in [
        // JSON: zap, logrus, slog, structlog, winston, pino, bunyan, GCP, ECS, Serilog, Vault, .NET, GELF.
        (r#"{"level":"error","ts":1795269000.1,"caller":"app/main.go:12","msg":"x"}"#, Error),
        (r#"{"level":"warning","msg":"x","time":"2026-11-21T13:50:00Z"}"#, Warn),
        (r#"{"time":"2026-11-21T13:50:00Z","level":"ERROR+2","msg":"x"}"#, Error),
        (r#"{"event": "x", "level": "critical", "logger": "app"}"#, Fatal),
        (r#"{"msg":"say \"level\":\"error\"","severity" : "WARNING"}"#, Warn),
        (r#"{"level":50,"time":1795269000000,"pid":1,"hostname":"a","msg":"pino"}"#, Error),
        (r#"{"name":"app","hostname":"a","pid":1,"level":40,"msg":"bunyan","v":0}"#, Warn),
        (r#"{"severity":"EMERGENCY","message":"x"}"#, Fatal),
        (r#"{"severity":500,"message":"x"}"#, Error),
        (r#"{"@timestamp":"2026-11-21T13:50:00Z","log.level":"error","message":"x"}"#, Error),
        (r#"{"@timestamp":"2026-11-21T13:50:00Z","log":{"level":"debug"},"message":"x"}"#, Debug),
        (r#"{"@t":"2026-11-21T13:50:00Z","@mt":"Hello {Name}","@l":"Fatal"}"#, Fatal),
        (r#"{"@level":"info","@message":"x"}"#, Info),
        (r#"{"EventId":0,"LogLevel":"Error","Category":"App","Message":"x"}"#, Error),
        (r#"{"version":"1.1","host":"a","short_message":"x","level":3}"#, Error),
        (r#"{"data":{"level":3},"level":"info"}"#, Info),
        (r#"  {"level":"trace"}"#, Debug),
        // logfmt
        ("time=2026-11-21T13:50:00Z level=warn msg=\"disk\"", Warn),
        ("level=info msg=\"ERROR is only a word here\"", Info),
        ("ts=2026-11-21T13:50:00Z caller=main.go:1 msg=x lvl=\"eror\" severity=ERROR", Error),
        ("msg=\"a = b\" level=error", Error),
        ("2026-11-21 13:50:00 app level=error msg=x", Error),
        // klog, glog
        ("E1121 13:50:00.123456       1 main.go:10] boom", Error),
        ("I1121 13:50:00.123456       1 main.go:10] ERROR is only a word here", Info),
        ("F1121 13:50:00.123456       1 main.go:10] bye", Fatal),
        // syslog
        ("<34>1 2026-11-21T13:50:00.003Z host su - ID47 - 'su root' failed", Fatal),
        ("<11>Nov 21 13:50:00 host app: x", Error),
        ("<190>Nov 21 13:50:00 host app: error is only a word here", Info),
        ("Nov 21 13:50:00 host app[1]: warning: low", Warn),
        // Python
        ("ERROR:root:x", Error),
        ("2026-11-21 13:50:00,123 - app - CRITICAL - x", Fatal),
        ("[2026-11-21 13:50:00 +0000] [1] [INFO] Booting worker", Info),
        ("WARNING:  StatReload detected changes", Warn),
        (
            "[2026-11-21 13:50:00,123: ERROR/ForkPoolWorker-1] Task app.run raised unexpected: KeyError('x')",
            Error,
        ),
        // Java
        ("2026-11-21 13:50:00,123 ERROR [main] com.x.Y - boom", Error),
        ("13:50:00.123 [http-nio-8080-exec-7] WARN  c.e.Orders - slow", Warn),
        ("2026-11-21T13:50:00.123Z  INFO 1 --- [           main] c.e.App : Started App in 2 seconds", Info),
        ("SEVERE: Servlet.service() threw exception", Error),
        ("21-Nov-2026 13:50:00.123 SEVERE [main] org.apache.catalina.core x", Error),
        // .NET
        ("fail: Microsoft.AspNetCore.Server.Kestrel[13]", Error),
        ("crit: App[0]", Fatal),
        ("warn: App[0]", Warn),
        ("dbug: App[0]", Debug),
        ("[13:50:00 ERR] HTTP GET / responded 500", Error),
        ("2026-11-21 13:50:00.123 +00:00 [INF] x", Info),
        // Servers
        ("2026/11/21 13:50:00 [error] 29#29: *1 open() \"/x\" failed (2: No such file or directory)", Error),
        ("[Sat Nov 21 13:50:00.123456 2026] [core:error] [pid 1] AH00126: Invalid URI in request", Error),
        ("[Sat Nov 21 13:50:00.123456 2026] [mpm_event:notice] [pid 1:tid 1] AH00489: configured", Info),
        ("2026-11-21 13:50:00.123 UTC [77] ERROR:  relation \"x\" does not exist at character 15", Error),
        ("2026-11-21 13:50:00.123 UTC [77] FATAL:  password authentication failed for user \"a\"", Fatal),
        ("2026-11-21 13:50:00.123 UTC [1] LOG:  database system is ready to accept connections", Info),
        (
            "2026-11-21T13:50:00.123456Z 0 [ERROR] [MY-010020] [Server] Data Dictionary initialization failed.",
            Error,
        ),
        ("2026-11-21T13:50:00.123456Z 0 [Warning] [MY-010068] [Server] CA certificate is self signed.", Warn),
        ("2026-11-21 13:50:00 0 [Note] InnoDB: Buffer pool(s) load completed", Info),
        ("1:M 21 Nov 2026 13:50:00.123 # Can't save in background: fork: Out of memory", Warn),
        ("1:M 21 Nov 2026 13:50:00.123 * Ready to accept connections", Info),
        ("1234:C 01 Nov 2026 13:50:00.123 - x", Debug),
        ("[2026-11-21 13:50:00.123][12][warning][main] [source/server/server.cc:910] x", Warn),
        ("2026-11-21T13:50:00.123456Z\terror\tsds\tfailed to fetch", Error),
        ("2026-11-21T13:50:00.123Z\tERROR\tapp/main.go:12\tx\t{\"a\": 1}", Error),
        // Rust, with and without colours
        ("2026-11-21T13:50:00.1Z  WARN crate::module: slow", Warn),
        ("[2026-11-21T13:50:00Z ERROR app::db] gone", Error),
        (
            "\u{1b}[2m2026-11-21T13:50:00.123456Z\u{1b}[0m \u{1b}[31mERROR\u{1b}[0m \u{1b}[2mapp\u{1b}[0m\u{1b}[2m:\u{1b}[0m x",
            Error,
        ),
        ("\u{1b}[33mwarning\u{1b}[0m: unused", Warn),
        ("[13:50:00.123] \u{1b}[32mINFO\u{1b}[39m (1): hello", Info),
        // Ruby, PHP, Node
        ("E, [2026-11-21T13:50:00.123456 #1] ERROR -- : x", Error),
        ("I, [2026-11-21T13:50:00.123456 #1]  INFO -- : Started GET \"/error\"", Info),
        ("[21-Nov-2026 13:50:00 UTC] PHP Warning:  Undefined variable $x in /a.php on line 3", Warn),
        ("[2026-11-21 13:50:00] production.ERROR: x", Error),
        ("npm ERR! code ELIFECYCLE", Error),
        ("error: no such file", Error),
        ("Error connecting to database", Error),
        ("Fatal: cannot open", Fatal),
        ("2026-11-21 | error | x", Error),
        ("DEBUG x", Debug),
        ("panic: runtime error: index out of range", Fatal),
        ("fatal error: all goroutines are asleep - deadlock!", Fatal),
    ] {
        assert_eq!(level(line.as_bytes()), Some(expected), "{line}");
    }
}

#[test]
fn what_only_talks_of_errors_has_no_level() {
    for line in [
        "",
        "0 errors found",
        "there was no error at all",
        "error_count=0 requests=7",
        "finished, error=null",
        "errors: 0, warnings: 0",
        "result: error: null",
        "last error: <nil>",
        r#"{"error":null,"msg":"fine"}"#,
        r#"{"msg":"ERROR in text"}"#,
        r#"{"game":{"level":3},"msg":"up"}"#,
        r#"{"msg":"\"level\":\"error\""}"#,
        r#"{"level":{"error":1}}"#,
        "10.0.0.1 - - \"GET /errors HTTP/1.1\" 200",
        "10.0.0.1 - - [21/Nov/2026:13:50:00 +0000] \"GET /error HTTP/1.1\" 500 12 \"-\" \"curl/8.5\"",
        "10.0.0.1 - - [21/Nov/2026:13:50:00 +0000] \"GET /ERROR/x HTTP/1.1\" 404 12",
        "[2026-11-21T13:50:00.123Z] \"GET / HTTP/1.1\" 503 UF upstream_reset_before_response_started{connection_failure}",
        "copied to /var/log/ERROR.log",
        "flag --on-ERROR-exit is set",
        "<error>none</error>",
        "alert manager is ready",
        "critical section entered",
        "<999>x",
        "lvl=\"eror\" x",
        "1:M is a move",
        "Erroneous",
    ] {
        assert_eq!(level(line.as_bytes()), None, "{line}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = level(&line);
    }

    #[test]
    fn anything_like_a_line_is_survived(line in "[<\\[{]?[\"a-z:\\\\ levlERO=\\x1b\\[0-9#M,.-]{0,60}") {
        let _ = level(line.as_bytes());
    }

    /// Every name that stands in a field of its own is understood, whatever else the object holds.
    #[test]
    fn a_level_in_an_object_is_found(before in "[a-z]{1,5}", text in "\\PC{0,20}", name in prop::sample::select(vec!["error", "ERROR", "Error"])) {
        prop_assume!(!is_level_key(before.as_bytes()));
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        let line = format!("{{\"{before}\":\"{text}\",\"n\":[1,{{\"x\":\"{text}\"}}],\"level\":\"{name}\"}}");
        prop_assert_eq!(level(line.as_bytes()), Some(Error));
    }
}
