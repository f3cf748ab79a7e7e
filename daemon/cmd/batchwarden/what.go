package main

import (
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"batchwarden/ipc/wire"
)

// what is what run's flags say about what runs, beside the arguments.
type what struct {
	commandLine string
	script      string
	login       bool
	stdin       string
	nice        int
	limits      []string
}

func (w *what) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&w.commandLine, "command-line", "", "a `line` for the account's shell, instead of a command after --")
	f.StringVar(&w.script, "script", "", "a `file` whose text is run, - for stdin; what follows -- are its arguments")
	f.BoolVar(&w.login, "login", false, "through the account's login shell, so that its profiles are read")
	f.StringVar(&w.stdin, "stdin", "", "a `file` that the job reads, - for stdin; at most 1 MiB (default: the job reads nothing)")
	f.IntVar(&w.nice, "nice", 0, "the job's nice value; one below 0 needs max.nice in limits.yaml")
	f.StringArrayVar(&w.limits, "limit", nil, "a limit `NAME=N` of the job as setrlimit(2) calls it, such as nofile=4096 or core=unlimited; may be given again")
}

// check says what cannot be, before any file is read.
func (w *what) check(args []string, stdio string) error {
	switch {
	case w.commandLine != "" && w.script != "":
		return usage("--command-line and --script are two things to run")
	case w.commandLine != "" && len(args) > 0:
		return usage("--command-line and a command after -- are two things to run")
	case w.commandLine == "" && w.script == "" && (len(args) == 0 || args[0] == ""):
		return usage("no command is given; write it after --, or use --command-line or --script")
	case w.script == "-" && w.stdin == "-":
		return usage("--script - and --stdin - both want what this command reads")
	case stdio == "passed" && (w.stdin != "" || w.script == "-"):
		return usage("with --stdio passed the job itself reads what this command does")
	}
	return nil
}

// fill puts it into the body. in is this command's own stdin.
func (w *what) fill(body *wire.Launch, args []string, in io.Reader) (err error) {
	switch {
	case w.commandLine != "":
		body.CommandLine = w.commandLine
	case w.script != "":
		body.Script = &wire.Script{Args: args}
		body.Script.Text, err = readText("--script", w.script, in)
	default:
		body.Command = args
	}
	if err == nil && w.stdin != "" {
		body.Stdin, err = readText("--stdin", w.stdin, in)
	}
	if err != nil {
		return err
	}
	body.Login = w.login
	limits, err := w.limitsOf()
	if w.nice != 0 || len(limits) > 0 {
		body.Unix = &wire.Unix{Nice: w.nice, Limits: limits}
	}
	return err
}

func (w *what) limitsOf() (map[string]uint64, error) {
	limits := make(map[string]uint64, len(w.limits))
	for _, l := range w.limits {
		name, value, _ := strings.Cut(l, "=")
		n, err := strconv.ParseUint(value, 10, 64)
		if value == "unlimited" {
			n, err = ^uint64(0), nil
		}
		if err != nil || name == "" {
			return nil, usage("--limit %q is not a limit; write it as nofile=4096 or core=unlimited", l)
		}
		if _, twice := limits[name]; twice {
			return nil, usage("--limit %s is given twice", name)
		}
		limits[name] = n
	}
	return limits, nil
}

// readText reads what travels as a JSON string, in which nothing but UTF-8 survives.
func readText(flag, file string, in io.Reader) (string, error) {
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", usage("%s: %w", flag, err)
		}
		defer f.Close() // only read
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, wire.MaxText+1))
	switch {
	case err != nil:
		return "", usage("%s: %w", flag, err)
	case len(text) > wire.MaxText:
		return "", usage("%s: %s has more than %d octets", flag, file, wire.MaxText)
	case strings.ToValidUTF8(string(text), "") != string(text):
		return "", usage("%s: %s is not UTF-8, and would not arrive as it is", flag, file)
	}
	return string(text), nil
}
