package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"eventpusher/feeds"
	"eventpusher/internal/setup"
)

func initFlags(fs *flag.FlagSet, o *options) {
	fs.StringVar(&o.config, "config", "config.toml", "`file` to write; one that is there is never touched")
	fs.StringVar(&o.setup.Server, "server", "", strings.Join(setup.Servers(), ", ")+": the XMPP `server`")
	fs.Var((*words)(&o.setup.Hosts), "host", "XMPP `domain` of the users; several are separated by commas")
	fs.Var((*words)(&o.setup.Rooms), "rooms", "`domain` of the chat rooms, if the server has them; several are separated by commas")
	fs.StringVar(&o.setup.Name, "name", "", "`domain` of the component; default: events. before the first host")
	fs.StringVar(&o.setup.To, "to", "", "`where` events go: "+strings.Join(setup.Types(), ", ")+", or a URL; default: http")
}

// words is a flag whose value is several words, separated by commas.
type words []string

func (w *words) String() string { return strings.Join(*w, ",") }

func (w *words) Set(s string) error {
	for word := range strings.SplitSeq(s, ",") {
		if word = strings.TrimSpace(word); word != "" {
			*w = append(*w, word)
		}
	}
	return nil
}

// runInit writes a first configuration. Standard output gets nothing but commands for a shell,
// so that they can be kept in a file.
func runInit(_ context.Context, p Process, o options) error {
	o.setup.Config = o.config
	plan, err := setup.Make(o.setup)
	if err != nil {
		return usageError(err.Error())
	}
	if err := create(o.config, plan.Config); err != nil {
		return err
	}
	fmt.Fprintf(p.Stderr, "%s is written, readable for you alone: it has a new secret. These are the next commands:\n\n", o.config)
	_, err = p.Stdout.Write(plan.Commands)
	return err
}

// create writes a file that is not there yet and that nobody else may read.
func create(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already and stays as it is: name another file with -config, or move it away", name)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

func feedFlags(fs *flag.FlagSet, o *options) {
	fs.StringVar(&o.out, "out", "", "`directory` for the files; it is made if need be")
}

// runFeed writes the module that runs inside an XMPP server.
func runFeed(_ context.Context, p Process, o options) error {
	if len(o.args) != 1 || o.out == "" {
		return usageError("write eventpusher feed " + strings.Join(feeds.Servers(), "|") + " -out DIR")
	}
	names, err := feeds.Write(o.args[0], o.out)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Stdout, "mod_event_feed for %s, revision %d: %d files in %s. %s says what it does, docs/servers/%s.md how to load it.\n",
		o.args[0], feeds.Revision(o.args[0]), len(names), o.out, filepath.Join(o.out, "mod_event_feed.md"), o.args[0])
	return nil
}
