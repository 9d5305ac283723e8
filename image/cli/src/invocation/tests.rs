use super::*;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn parsed(line: &str) -> Result<Invocation, clap::Error> {
    interpret(&words(line))
}

fn action(line: &str) -> Action {
    match parsed(line) {
        Ok(Invocation::User(command)) => command.action,
        other => panic!("{line}: {other:?}"),
    }
}

fn usage_error(line: &str) -> String {
    let error = parsed(line).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{line}");
    error.to_string()
}

#[test]
fn the_same_command_is_meant_by_skyserve_and_by_sky_serve() {
    for line in
        ["skyserve up s.yaml -n web -y --wait --env A=1", "/usr/bin/sky serve up s.yaml -n web -y --wait --env A=1"]
    {
        let Action::Up(up) = action(line) else { panic!("{line}") };
        assert_eq!(up.yaml, Path::new("s.yaml"));
        assert_eq!(up.name.as_deref(), Some("web"));
        assert!(up.assume_yes && up.wait);
        assert_eq!(up.overrides.env, ["A=1"]);
    }
}

#[test]
fn the_commands_we_suggest_are_typed_as_the_person_typed_ours() {
    for (program, suggested) in [
        ("skyserve", "skyserve status web"),
        ("target/release/skyserve", "target/release/skyserve status web"),
        ("sky", "sky serve status web"),
        ("./bin/sky", "./bin/sky serve status web"),
    ] {
        assert_eq!(CalledAs::from_program(Path::new(program)).command("status web"), suggested);
    }
}

#[test]
fn the_walkthrough_of_the_existing_documentation_is_understood() {
    assert!(matches!(action("sky serve up -n my-http-service http_service.yaml"), Action::Up(_)));
    assert!(matches!(action("sky serve status my-http-service"), Action::Status(_)));
    let Action::Status(status) = action("sky serve status my-http-service --endpoint") else { panic!() };
    assert_eq!(status.form, StatusForm::Endpoint);
    let Action::StopRuntime(stop) = action("sky down --purge sky-serve-controller") else { panic!() };
    assert!(stop.purge && !stop.assume_yes);
    assert!(matches!(action("sky down sky-serve-controller-1a2b3c4d -y"), Action::StopRuntime(_)));
    for line in ["skyserve down --purge sky-serve-controller", "sky serve down --purge sky-serve-controller"] {
        let Action::StopRuntime(stop) = action(line) else { panic!("{line}") };
        assert!(stop.purge && stop.names == ["sky-serve-controller"], "{line}");
    }
}

#[test]
fn what_belongs_to_skypilot_is_answered_with_what_this_program_does() {
    for line in ["sky launch x.yaml", "sky jobs pool apply p.yaml", "sky status"] {
        let Action::Refuse(text) = action(line) else { panic!("{line}") };
        assert!(text.contains("sky serve up|update|status|logs|down|check"), "{text}");
    }
    let Action::Refuse(text) = action("sky down my-cluster") else { panic!() };
    assert!(text.contains("sky serve down my-cluster"), "{text}");
}

#[test]
fn update_takes_a_name_and_a_yaml_and_one_mode_so_far() {
    for line in ["skyserve update web new.yaml -y --mode rolling --wait", "sky serve update web new.yaml --wait -y"] {
        let Action::Update(update) = action(line) else { panic!("{line}") };
        assert_eq!((update.name.as_str(), update.yaml.to_str()), ("web", Some("new.yaml")));
        assert_eq!((update.mode, update.assume_yes, update.wait), (UpdateMode::Rolling, true, true));
    }
    let Action::Refuse(text) = action("skyserve update web new.yaml --mode blue_green") else { panic!() };
    assert!(text.contains("blue_green") && text.contains("rolling"), "{text}");
    assert!(usage_error("skyserve update web").contains("YAML"));
}

#[test]
fn status_takes_one_form() {
    let Action::Status(status) = action("skyserve status a b -v --watch") else { panic!() };
    assert_eq!((status.form, status.watch), (StatusForm::Table { verbose: true }, true));
    assert_eq!(status.names, ["a", "b"]);
    let Action::Status(status) = action("skyserve status -o json") else { panic!() };
    assert_eq!(status.form, StatusForm::Json);
    usage_error("skyserve status --endpoint -o json");
    usage_error("skyserve status --endpoint --watch");
}

#[test]
fn logs_are_of_one_thing() {
    let of = |line: &str| match action(line) {
        Action::Logs(logs) => (logs.of, logs.follow, logs.tail),
        other => panic!("{other:?}"),
    };
    assert_eq!(of("skyserve logs web 3"), (LogOf::Replica(3), true, None));
    assert_eq!(of("skyserve logs --controller web --tail 5 --no-follow"), (LogOf::Controller, false, Some(5)));
    assert_eq!(of("skyserve logs web --load-balancer --no-follow --follow"), (LogOf::LoadBalancer, true, None));
    assert_eq!(of("skyserve logs web").0, LogOf::Unsaid);
    usage_error("skyserve logs web 1 --controller");
    usage_error("skyserve logs web --load-balancer --controller");
    usage_error("skyserve logs web one");
}

#[test]
fn down_needs_names_or_all_and_a_replica_needs_exactly_one_service() {
    let target = |line: &str| match action(line) {
        Action::Down(down) => down.target,
        other => panic!("{other:?}"),
    };
    assert_eq!(target("skyserve down a b*"), DownTarget::Services(vec!["a".into(), "b*".into()]));
    assert_eq!(target("skyserve down --all -y"), DownTarget::All);
    assert_eq!(target("skyserve down a --replica-id 2 -p"), DownTarget::Replica { service: "a".into(), id: 2 });
    usage_error("skyserve down");
    usage_error("skyserve down a --all");
    usage_error("skyserve down --all --replica-id 1");
    usage_error("skyserve down a b --replica-id 1");
}

#[test]
fn roles_are_understood_whatever_the_program_is_called() {
    for program in ["skyserve", "sky"] {
        assert!(matches!(parsed(&format!("{program} controller")), Ok(Invocation::Controller)));
        assert!(matches!(parsed(&format!("{program} loadbalancer")), Ok(Invocation::LoadBalancer)));
        let Ok(Invocation::Shim { arguments }) = parsed(&format!("{program} shim --dir /r --foreground")) else {
            panic!()
        };
        assert_eq!(arguments, ["--dir", "/r", "--foreground"]);
        let Ok(Invocation::Init(init)) = parsed(&format!("{program} init --setup s.sh --run 1=a --run 2=b=c")) else {
            panic!()
        };
        assert_eq!(init.setup.as_deref(), Some(Path::new("s.sh")));
        assert_eq!(
            init.runs.iter().map(|(id, file)| format!("{id} {}", file.display())).collect::<Vec<_>>(),
            ["1 a", "2 b=c"]
        );
        assert!(matches!(parsed(&format!("{program} follower")), Ok(Invocation::Follower)));
        let Ok(Invocation::Init(init)) = parsed(&format!("{program} init --load-balancer-only")) else { panic!() };
        assert!(init.load_balancer_only && init.command.is_none());
        let Ok(Invocation::Init(init)) = parsed(&format!("{program} init -- sleep -v 5")) else { panic!() };
        assert_eq!(init.command.unwrap(), ["sleep", "-v", "5"]);
    }
    assert!(usage_error("skyserve init --run x=a").contains("x=a"));
}

#[test]
fn help_shows_examples_in_the_form_that_was_called_and_hides_the_parts() {
    let help = |line: &str| parsed(line).unwrap_err().to_string();
    assert!(help("skyserve up --help").contains("skyserve up service.yaml"));
    let sky = help("sky serve up --help");
    assert!(sky.contains("sky serve up service.yaml") && !sky.contains("skyserve up"), "{sky}");
    let overview = help("skyserve --help");
    assert!(overview.contains("init") && !overview.contains("shim"), "{overview}");
    assert_eq!(parsed("skyserve --version").unwrap_err().exit_code(), 0);
}

#[test]
fn values_of_overrides_are_not_shown_when_a_command_is_printed() {
    let shown = format!("{:?}", parsed("skyserve up s.yaml --env A=hush --secret B=hush").unwrap());
    assert!(!shown.contains("hush"), "{shown}");
}
