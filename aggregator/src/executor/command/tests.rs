mod whole;

use proptest::prelude::*;

use super::{
    filter::FILTERS,
    flags::{Arguments, Takes},
    refused::{PROGRAMS, REFUSED},
    verbs::{NEVER, VERBS},
    *,
};
use crate::executor::mutation::mutated;

fn judge(line: &str) -> Result<Command, Reason> {
    Command::parse(line).map_err(|refused| refused.reason)
}

#[test]
fn what_runs_is_understood() {
    for line in [
        "kubectl get pods",
        "kubectl -n shop get po,svc -o wide --show-labels | grep web | head -5",
        "kubectl get pods -Ao wide",
        "kubectl get pod/web -n shop -o jsonpath='{.status.phase}'",
        "kubectl logs web -c app --tail=100 --since 1h -p",
        "kubectl top pods -A --sort-by=memory",
        "kubectl auth can-i get pods -n shop",
        "kubectl rollout status deploy/web --watch=false",
        "kubectl diff -n shop --server-side --filename=- <<'EOF' | head -5\na: $1\nEOF\n",
    ] {
        Command::parse(line).unwrap_or_else(|refused| panic!("{line}: {refused}"));
    }
}

#[test]
fn secrets_and_what_stays_are_known_by_the_words() {
    let under = |line: &str, excluded: &str| {
        Command::parse(line)
            .unwrap()
            .under(Rules::default(), &Excluded::parse(excluded))
            .map_err(|refused| refused.reason)
            .map(|_| ())
    };
    for line in [
        "kubectl get secrets",
        "kubectl get po,secret -A",
        "kubectl describe secret/x",
        "kubectl get secrets.v1. x",
        "kubectl get Secret x -o yaml",
    ] {
        assert_eq!(under(line, ""), Err(Reason::Secret), "{line}");
    }
    for line in [
        "kubectl logs p -n bank",
        "kubectl events -n bank",
        "kubectl events -A",
        "kubectl get events -n bank",
        "kubectl get ev -A",
    ] {
        assert_eq!((under(line, ""), under(line, "bank")), (Ok(()), Err(Reason::Kept)), "{line}");
    }
    assert_eq!(under("kubectl get pods -n bank", "bank"), Ok(()));
    assert_eq!(under("kubectl get pods secret", ""), Ok(()), "a pod of that name");
}

#[test]
fn ages_are_said_as_kubectl_says_them() {
    for (seconds, said) in [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (10_800, "3h"),
        (11_100, "3h5m"),
        (28_800, "8h"),
        (172_800, "2d"),
        (180_000, "2d2h"),
        (86_400 * 30, "30d"),
        (86_400 * 365 * 2, "2y"),
        (86_400 * 800, "2y70d"),
        (-5, "<invalid>"),
    ] {
        assert_eq!(human(seconds), said, "{seconds}");
    }
}

#[test]
fn a_manifest_is_judged_as_one_of_a_dry_run() {
    let under = |manifest: &str, dry_run: bool| {
        let rules = Rules { dry_run, ..Rules::default() };
        let line = format!("kubectl diff -f - <<'EOF'\n{manifest}EOF");
        Command::parse(&line)
            .unwrap()
            .under(rules, &Excluded::default())
            .map_err(|refused| refused.to_string())
    };
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    assert_eq!(under(map, true).map(|_| ()), Ok(()));
    for (manifest, dry_run, why) in [
        (map, false, "refused (off): "),
        ("a: [\n", true, "refused (malformed): line 1: this is not YAML"),
        (
            &format!("{map}---\n\n{}", map.replace("ConfigMap", "Secret")),
            true,
            "refused (secret): document 2, line 6: Secrets",
        ),
        ("", true, "refused (malformed): the manifest is empty"),
    ] {
        let refused = under(manifest, dry_run).unwrap_err();
        assert!(refused.starts_with(why), "{refused}");
    }
    for line in [
        "kubectl diff -f x.yaml",
        "kubectl diff -f -",
        "kubectl diff -f - -f x <<'EOF'\nEOF",
        "kubectl diff <<'EOF'\nEOF",
    ] {
        assert_eq!(judge(line).unwrap_err(), Reason::File, "{line}");
    }
}

/// Words of commands, flags of any table and none, and values.
fn argument() -> impl Strategy<Value = String> {
    let known: Vec<String> = VERBS
        .iter()
        .flat_map(|verb| verb.flags)
        .flat_map(|flag| {
            let long = format!("--{}", flag.long);
            let value = format!("--{}=x", flag.long);
            [
                Some(long),
                Some(value),
                flag.short.map(|short| format!("-{short}")),
                flag.short.map(|short| format!("-{short}x")),
            ]
        })
        .flatten()
        .chain(NEVER.iter().map(|never| format!("--{}", never.long)))
        .chain(
            ["--", "-", "-o=json", "--watch=false", "pods", "x/y", "name", "wide", "-An", "-nx", "-wA"]
                .map(str::to_owned),
        )
        .collect();
    prop_oneof![4 => proptest::sample::select(known), 1 => "-{0,2}[a-zA-Z]{1,8}=?[a-z]{0,3}"]
}

proptest! {
    /// Whatever is accepted is rendered to the same argv, and has no flag that is not in the table.
    #[test]
    fn accepted_arguments_are_those_of_the_table(arguments in proptest::collection::vec(argument(), 0..8), place in 0..VERBS.len()) {
        let verb = &VERBS[place];
        if let Ok(parsed) = Arguments::parse(&arguments, verb.flags, &[verb.never, &NEVER]) {
            prop_assert_eq!(parsed.render(), arguments);
            for flag in parsed.flags() {
                prop_assert!(verb.flags.contains(flag));
                prop_assert!(!NEVER.iter().any(|never| never.long == flag.long));
            }
        }
    }

    /// A line that is accepted is the same command once it is written anew.
    #[test]
    fn accepted_lines_are_written_anew_as_the_same(arguments in proptest::collection::vec(argument(), 0..6), place in 0..VERBS.len()) {
        let words: Vec<String> = ["kubectl"].iter().chain(VERBS[place].words).map(ToString::to_string).chain(arguments).collect();
        let line = words::join(std::slice::from_ref(&words));
        prop_assert_eq!(words::split(&line).unwrap(), vec![words]);
        if let Ok(command) = Command::parse(&line) {
            let again = Command::parse(&line).unwrap();
            prop_assert_eq!(command.kubectl.arguments, again.kubectl.arguments);
        }
    }

    /// The same of what the corpora ask for, but for a few bytes.
    #[test]
    fn what_is_accepted_of_a_mutated_corpus_is_of_the_tables(
        command in mutated(
            &[
                include_str!("../../../tests/policy/commands.jsonl"), include_str!("../../../tests/policy/honest.jsonl"),
                include_str!("../../../tests/policy/dry_runs.jsonl"),
            ],
            &[
                " ", "'", "\"", "\\", "|", " | grep ", ";", "&&", "$(", "`", ">", "<(", "\n", "--", " -- ", " -", "=", ",", "/", "--as=x", "--raw",
                "-f", " -o ", "json", "secrets", "--token", "--kubeconfig=", "exec", "--watch", " -n ", "{", "}", "\u{202e}", "\u{435}",
                "<<", " <<'EOF'", "\nEOF\n",
            ],
        )
    ) {
        let taken = here::split(&command).ok().flatten();
        let line = taken.as_ref().map_or(&command, |(line, _)| line);
        if let Ok(stages) = words::split(line) {
            prop_assert_eq!(words::split(&words::join(&stages)).unwrap(), stages.clone());
            if let Ok(command) = Command::parse(&command) {
                prop_assert_eq!(stages[0][0].as_str(), "kubectl");
                let kubectl = &command.kubectl;
                // The words of the verb may stand anywhere between flags.
                let mut argv = kubectl.arguments.render();
                argv.extend(kubectl.verb.words.iter().map(ToString::to_string));
                let mut written = stages[0][1..].to_vec();
                // top takes plurals and short names.
                for word in argv.iter_mut().chain(&mut written).filter(|_| kubectl.verb.words[0] == "top") {
                    match word.as_str() {
                        "pods" | "po" => "pod".clone_into(word),
                        "nodes" | "no" => "node".clone_into(word),
                        _ => {}
                    }
                }
                argv.sort();
                written.sort();
                prop_assert_eq!(argv, written);
                for flag in kubectl.arguments.flags() {
                    prop_assert!(kubectl.verb.flags.contains(flag));
                    prop_assert!(!kubectl.verb.never.iter().chain(&NEVER).any(|never| never.long == flag.long));
                }
                let under = command.clone().under(Rules::default(), &Excluded::default());
                let manifest = taken.map(|(_, manifest)| manifest);
                prop_assert!(under.is_err() == (kubectl.asks_for_secrets() || manifest.is_some()));
                prop_assert_eq!(&kubectl.manifest, &manifest);
                if let Some(manifest) = &manifest {
                    let (line, same) = here::split(&here::join(&words::join(&stages), manifest)).unwrap().unwrap();
                    prop_assert_eq!((words::split(&line).unwrap(), &same), (stages, manifest));
                }
            }
        }
    }

    /// Whatever is asked for, there is an answer; and nothing but kubectl stands first.
    #[test]
    fn any_line_is_judged(
        line in "(kubectl|bash|cat)?( (get|logs|pods|diff|-n|-f|-o|x|[|;&$`'\"<>(){}\\\\-]|<<'E'|\\PC)){0,8}( <<['\"]?E['\"]?)?(\n(a: |\\PC){0,3}\nE\n?)?"
    ) {
        if let Ok(command) = Command::parse(&line) {
            prop_assert!(line.trim_start().starts_with("kubectl"));
            prop_assert!(line.split('\n').next().unwrap_or_default().is_ascii());
            prop_assert!(line.contains('\n') == command.kubectl.manifest.is_some());
        }
    }
}

#[test]
fn tables_have_no_flag_twice_and_none_that_is_refused() {
    for verb in &VERBS {
        for (place, flag) in verb.flags.iter().enumerate() {
            let twice = verb.flags[..place]
                .iter()
                .any(|other| other.long == flag.long || (flag.short.is_some() && other.short == flag.short));
            assert!(!twice, "{:?} --{}", verb.words, flag.long);
            assert!(!verb.never.iter().chain(&NEVER).any(|never| never.long == flag.long), "--{}", flag.long);
            assert!(
                !verb.never.iter().any(|never| never.short.is_some() && never.short == flag.short),
                "--{}",
                flag.long
            );
        }
    }
}

/// The page says the same as the tables.
#[test]
fn the_page_of_commands_is_that_of_the_tables() {
    let page = include_str!("../../../../docs/commands.md");
    let flags = |table: &[flags::Flag]| -> String {
        let shown: Vec<String> = table
            .iter()
            .map(|flag| {
                let value = if flag.takes == Takes::Value { "=" } else { "" };
                match flag.short {
                    Some(short) => format!("`-{short}`, `--{}{value}`", flag.long),
                    None => format!("`--{}{value}`", flag.long),
                }
            })
            .collect();
        shown.join(", ")
    };
    for verb in &VERBS {
        let row = format!("| `kubectl {}` | {} |", verb.words.join(" "), flags(verb.flags));
        assert!(page.contains(&row), "docs/commands.md lacks: {row}");
    }
    for (name, table) in FILTERS {
        let row = format!("| `{name}` | {} |", flags(table));
        assert!(page.contains(&row), "docs/commands.md lacks: {row}");
    }
    for tool in &host::TOOLS {
        let shown = if tool.flags.is_empty() { "none".to_owned() } else { flags(tool.flags) };
        let row = format!("| `{}` | {shown} |", tool.word);
        assert!(page.contains(&row), "docs/commands.md lacks: {row}");
    }
    for (names, reason, why) in &host::NOT_ANSWERED {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let row = format!("| {} | `{}` | {why} |", names.join(", "), reason.as_str());
        assert!(page.contains(&row), "docs/commands.md lacks: {row}");
    }
    for (word, reason, why) in &REFUSED {
        let row = format!("| `kubectl {word}` | `{}` | {why} |", reason.as_str());
        assert!(page.contains(&row), "docs/commands.md lacks: {row}");
    }
    for (names, reason, why) in &PROGRAMS {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let row = format!("| {} | `{}` | {why} |", names.join(", "), reason.as_str());
        assert!(page.contains(&row), "docs/commands.md lacks: {row}");
    }
    for never in &NEVER {
        let row = format!("| `--{}` | `{}` | {} |", never.long, never.reason.as_str(), never.why);
        assert!(page.contains(&row), "docs/commands.md lacks: {row}");
    }
}

#[test]
fn other_programs_are_refused_with_what_to_ask_for_instead() {
    for (line, reason) in [
        ("bash -c 'kubectl get pods'", Reason::Shell),
        ("FOO=1 kubectl get pods", Reason::Shell),
        ("/usr/bin/kubectl get pods", Reason::File),
        ("cat /etc/passwd", Reason::File),
        ("grep x y", Reason::File),
        ("curl http://x", Reason::Elsewhere),
        ("helm list -A", Reason::Secret),
        ("tcpdump -i any", Reason::Malformed),
        ("iptables-save", Reason::Malformed),
        ("nonsense", Reason::Unknown),
    ] {
        assert_eq!(judge(line).unwrap_err(), reason, "{line}");
    }
}
