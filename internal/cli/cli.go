// Package cli is the command line: it parses flags, runs a command and says how
// it ended.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"eventpusher/config"
	"eventpusher/feeds"
	"eventpusher/internal/notices"
	"eventpusher/internal/setup"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// Process is what the operating system gives a command.
type Process struct {
	Args    []string // without the program's name
	Env     []string // KEY=value
	Stdout  io.Writer
	Stderr  io.Writer
	Version string
	Own     []config.Type // types of filters and destinations that the program adds
}

// command is one subcommand; a name of two words is written with a space between
// them. run gets a context that ends on SIGINT or SIGTERM.
type command struct {
	name    string
	args    string // what it takes beside flags, as the usage shows it; empty: nothing
	summary string
	flags   func(*flag.FlagSet, *options)
	run     func(context.Context, Process, options) error
}

// options are the flags of all commands; each command declares those it knows.
type options struct {
	config   string
	count    int
	rate     float64
	duration time.Duration // of bench
	letters  letterFlags
	dry      bool
	to       string // of send
	kind     string
	setup    setup.Options // of init
	out      string        // of feed
	when     string        // of tail
	texts    bool
	args     []string
}

func configFlag(fs *flag.FlagSet, o *options) {
	fs.StringVar(&o.config, "config", "config.toml", "configuration `file`")
}

func noFlags(*flag.FlagSet, *options) {}

func commands() []command {
	return []command{
		{"run", "", "attach to the XMPP server and publish events until stopped", configFlag, runDaemon},
		{"check", "[FILE]", "read the configuration and list every problem in it", configFlag, runCheck},
		{"reload", "", "have the running instance read its configuration again; a file with errors changes nothing", configFlag, runReload},
		{"doctor", "", "examine the running instance, the link, the feeds and the services; publishes nothing", doctorFlags, runDoctor},
		{"tail", "", "show the events of the running instance as they come, and what becomes of them", tailFlags, runTail},
		{"explain", "ID", "say what has become of an event, or of a stanza by its id", explainFlags, runLife},
		{"send", "", "send one made-up event to a destination, and show what it answers", sendFlags, runSend},
		{"init", "", "write a first config.toml, and print the commands that attach it to an XMPP server", initFlags, runInit},
		{"feed", strings.Join(feeds.Servers(), "|"), "write mod_event_feed, the module that runs inside the XMPP server", feedFlags, runFeed},
		{"bench", "", "measure on this machine: a built-in XMPP server sends messages, a receiver or your destinations take them", benchFlags, runBench},
		{"demo", "", "show events from a small scripted chat; needs no server, broker or file", demoFlags, runDemo},
		{"dlq list", "", "list dead letters: events that a backend will not take", listFlags, runLettersList},
		{"dlq show", "NUMBER...", "show dead letters whole", showFlags, runLettersShow},
		{"dlq replay", "NUMBER...|-all|FLAGS", "give dead letters back to their backends", changeFlags, runLettersReplay},
		{"dlq drop", "NUMBER...|-all|FLAGS", "forget dead letters for good", changeFlags, runLettersDrop},
		{"outbox move", "OLD NEW", "give what waits for a backend that is not configured any more to another one", configFlag, runMove},
		{"outbox forget", "NAME", "forget what waits for a backend that is not configured any more", forgetFlags, runForget},
		{"push explain", "USER", "say what a user has registered for push, and why the last messages did or did not push", explainFlags, runExplain},
		{"push disable", "USER [SERVICE [NODE]]", "remove push registrations of a user", configFlag, runDisable},
		{"health", "", "ask the running instance whether it is ready (for containers)", configFlag, runHealth},
		{"completion", "bash|zsh|fish", "print a script by which a shell completes commands and flags", noFlags, runCompletion},
		{"version", "", "print the version, and what it was built from", noFlags, runVersion},
		{"licences", "", "print the licences of eventpusher and of all that is linked into it", noFlags, runLicences},
	}
}

// errFailed ends a command that has already said what is wrong.
var errFailed = errors.New("failed")

// usageError is a flag whose value makes no sense.
type usageError string

func (e usageError) Error() string { return string(e) }

// Main runs the command that p.Args name and returns the exit code:
// 0 fine, 1 failed, 2 wrong usage.
func Main(p Process) int {
	if len(p.Args) == 0 {
		usage(p.Stderr, "")
		return exitUsage
	}
	first := p.Args[0]
	if first == "help" && len(p.Args) > 1 {
		p.Args = append(p.Args[1:], "-h")
		return Main(p)
	}
	if isHelp(first) || first == "help" {
		usage(p.Stdout, "")
		return exitOK
	}
	if first == "-version" || first == "--version" {
		first, p.Args = "version", []string{"version"}
	}
	words := 1
	for _, c := range commands() {
		name := strings.Fields(c.name)
		if len(p.Args) >= len(name) && slices.Equal(p.Args[:len(name)], name) {
			p.Args = p.Args[len(name):]
			return runCommand(c, p)
		}
		if name[0] == first {
			words = min(len(name), len(p.Args))
		}
	}
	group := ""
	if slices.ContainsFunc(commands(), func(c command) bool { return strings.HasPrefix(c.name, first+" ") }) {
		group = first + " "
	}
	if words > 1 && isHelp(p.Args[1]) {
		usage(p.Stdout, group)
		return exitOK
	}
	if group == "" || words > 1 {
		fmt.Fprintf(p.Stderr, "eventpusher: there is no command %q\n\n", strings.Join(p.Args[:words], " "))
	}
	usage(p.Stderr, group)
	return exitUsage
}

func isHelp(arg string) bool { return arg == "-h" || arg == "-help" || arg == "--help" }

func runCommand(c command, p Process) int {
	fs := flag.NewFlagSet("eventpusher "+c.name, flag.ContinueOnError)
	fs.SetOutput(p.Stderr)
	fs.Usage = func() {
		fmt.Fprintln(p.Stderr, strings.TrimRight("usage: eventpusher "+c.name+" [flags] "+c.args, " "))
		fs.PrintDefaults()
	}
	var o options
	c.flags(fs, &o)
	args, err := parse(fs, p.Args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	case len(args) > 0 && c.args == "":
		fmt.Fprintf(p.Stderr, "eventpusher %s: takes no arguments, only flags: %s\n", c.name, strings.Join(args, " "))
		return exitUsage
	}
	o.args = args
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// After the first signal the default handling returns: a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	if err = c.run(ctx, p, o); err == nil {
		return exitOK
	}
	if !errors.Is(err, errFailed) {
		fmt.Fprintf(p.Stderr, "eventpusher %s: %v\n", c.name, err)
	}
	if _, wrong := errors.AsType[usageError](err); wrong {
		return exitUsage
	}
	return exitFailed
}

// parse reads the flags, which may stand behind arguments as well, up to a "--", and
// returns the arguments.
func parse(fs *flag.FlagSet, words []string) (args []string, err error) {
	for {
		if err := fs.Parse(words); err != nil {
			return nil, err
		}
		rest := fs.Args()
		if flags := len(words) - len(rest); len(rest) == 0 || flags > 0 && words[flags-1] == "--" {
			return append(args, rest...), nil
		}
		args, words = append(args, rest[0]), rest[1:]
	}
}

// usage lists the commands whose names begin with group.
func usage(w io.Writer, group string) {
	fmt.Fprintln(w, "usage: eventpusher "+group+"COMMAND [flags]")
	fmt.Fprintln(w)
	for _, c := range commands() {
		if !strings.HasPrefix(c.name, group) {
			continue
		}
		fmt.Fprintf(w, "  %-34s %s\n", strings.TrimRight(c.name+" "+c.args, " "), c.summary)
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "eventpusher COMMAND -h lists the flags of a command.")
}

func runVersion(_ context.Context, p Process, _ options) error {
	fmt.Fprintf(p.Stdout, "eventpusher %s%s\n", p.Version, built())
	return nil
}

func runLicences(_ context.Context, p Process, _ options) error {
	_, err := io.WriteString(p.Stdout, notices.Text)
	return err
}

// built says of what commit and with what the program was built, as far as it knows.
func built() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	commit := ""
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			commit = ", commit of " + s.Value
		}
	}
	return commit + ", " + info.GoVersion + " " + runtime.GOOS + "/" + runtime.GOARCH
}
