package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
)

// runCompletion prints a script by which a shell completes commands and flags.
func runCompletion(_ context.Context, p Process, o options) error {
	if len(o.args) != 1 {
		return usageError("say for which shell: eventpusher completion bash|zsh|fish")
	}
	switch o.args[0] {
	case "bash":
		completeBash(p.Stdout)
	case "zsh":
		fmt.Fprintln(p.Stdout, "autoload -U +X bashcompinit && bashcompinit")
		completeBash(p.Stdout)
	case "fish":
		completeFish(p.Stdout)
	default:
		return usageError(fmt.Sprintf("there is no completion for %q; there is for bash, zsh and fish", o.args[0]))
	}
	return nil
}

// flagsOf lists the flags of a command, without those of its arguments.
func flagsOf(c command) (all []*flag.Flag) {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	c.flags(fs, new(options))
	fs.VisitAll(func(f *flag.Flag) { all = append(all, f) })
	return all
}

// following lists the words that can follow first, or begin a command if it is empty.
func following(first string) (words []string) {
	seen := make(map[string]bool)
	for _, c := range commands() {
		name := strings.Fields(c.name)
		word := ""
		switch {
		case first == "":
			word = name[0]
		case name[0] == first && len(name) > 1:
			word = name[1]
		}
		if word != "" && !seen[word] {
			seen[word] = true
			words = append(words, word)
		}
	}
	return words
}

// completeBash offers after - the flags of the command, else commands, else files.
func completeBash(w io.Writer) {
	fmt.Fprintln(w, "_eventpusher() {\n\tlocal words=''\n\tcase \"${COMP_WORDS[*]:1:COMP_CWORD}\" in")
	for _, c := range commands() {
		var names []string
		for _, f := range flagsOf(c) {
			names = append(names, "-"+f.Name)
		}
		fmt.Fprintf(w, "\t'%s '*-*) words='%s' ;;\n", c.name, strings.Join(names, " "))
	}
	for _, first := range following("") {
		if second := following(first); len(second) > 0 {
			fmt.Fprintf(w, "\t'%s'\\ *) ((COMP_CWORD == 2)) && words='%s' ;;\n", first, strings.Join(second, " "))
		}
	}
	fmt.Fprintf(w, "\t*) ((COMP_CWORD == 1)) && words='%s' ;;\n\tesac\n", strings.Join(following(""), " "))
	fmt.Fprintln(w, "\tCOMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n}\ncomplete -o default -F _eventpusher eventpusher")
}

func completeFish(w io.Writer) {
	quote := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'" }
	for _, c := range commands() {
		name := strings.Fields(c.name)
		condition := "__fish_use_subcommand"
		if len(name) > 1 {
			fmt.Fprintf(w, "complete -c eventpusher -f -n __fish_use_subcommand -a %s\n", name[0])
			condition = quote("__fish_seen_subcommand_from " + name[0])
		}
		fmt.Fprintf(w, "complete -c eventpusher -f -n %s -a %s -d %s\n", condition, name[len(name)-1], quote(c.summary))
		for _, f := range flagsOf(c) {
			_, usage := flag.UnquoteUsage(f)
			fmt.Fprintf(w, "complete -c eventpusher -n %s -o %s -d %s\n", quote("__fish_seen_subcommand_from "+name[len(name)-1]), f.Name, quote(usage))
		}
	}
}
