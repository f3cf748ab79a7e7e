package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"batchwarden/installer/testbed"
)

// A show is one run of the demo.
type show struct {
	ctx   context.Context
	bed   *testbed.Bed
	out   io.Writer
	step  int
	begun time.Time
}

func newShow(ctx context.Context, bed *testbed.Bed, out io.Writer) *show {
	return &show{ctx: ctx, bed: bed, out: out, begun: time.Now()}
}

// all shows every step. The first that does not come out as it should ends
// the show.
func (s *show) all() error {
	return s.steps(s.serverUp, s.prepared, s.daemonOnline, s.jobRuns, s.denied, s.stranger, s.offline,
		s.rotated, s.removed, s.audited, s.searched)
}

// steps runs one after the other.
func (s *show) steps(all ...func() error) error {
	for _, step := range all {
		if err := s.ctx.Err(); err != nil {
			return fmt.Errorf("interrupted in step %d", s.step)
		}
		if err := step(); err != nil {
			if s.ctx.Err() != nil {
				return fmt.Errorf("interrupted in step %d", s.step)
			}
			return fmt.Errorf("\nstep %d failed: %w\n%s", s.step, err, s.logs())
		}
	}
	fmt.Fprintf(s.out, "\nall %d steps came out as they should, in %.1fs\n", s.step, time.Since(s.begun).Seconds())
	return nil
}

// logs are the last lines of what the programs said.
func (s *show) logs() string {
	if s.bed == nil {
		return ""
	}
	return s.bed.Logbook(25)
}

// say begins a step.
func (s *show) say(format string, args ...any) {
	s.step++
	fmt.Fprintf(s.out, "\n%s  %s\n", bold(fmt.Sprintf("%2d", s.step)), fmt.Sprintf(format, args...))
}

// note adds a line to a step.
func (s *show) note(format string, args ...any) {
	s.indent(fmt.Sprintf(format, args...))
}

func (s *show) indent(text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintln(s.out, "    "+strings.TrimRight(line, "\n"))
	}
}

// command shows a command as it is run.
func (s *show) command(as testbed.Account, argv ...string) {
	who := ""
	if as.Name != testbed.Root.Name {
		who = as.Name + " "
	}
	fmt.Fprintln(s.out, "    "+dim(who+"$ "+quoted(argv)))
}

// run runs "batchwarden ARGS…" as the account and shows it with what it says.
// Another exit code than want is an error.
func (s *show) run(want int, as testbed.Account, args ...string) (testbed.Result, error) {
	r, err := s.quietly(want, as, args...)
	s.indent(r.Out)
	s.indent(r.Err)
	return r, err
}

// quietly is run without showing what the command says.
func (s *show) quietly(want int, as testbed.Account, args ...string) (testbed.Result, error) {
	s.command(as, append([]string{"batchwarden"}, args...)...)
	r := s.bed.CLI(as, args...)
	if r.Code != want {
		return r, fmt.Errorf("batchwarden %s: exit code %d, want %d\n%s%s", quoted(args), r.Code, want, r.Out, r.Err)
	}
	if want != 0 {
		s.note("%s", dim(fmt.Sprintf("exit code %d", r.Code)))
	}
	return r, nil
}

// says checks that a text contains all of the words.
func says(what, text string, words ...string) error {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return fmt.Errorf("%s: nothing of %q in:\n%s", what, w, text)
		}
	}
	return nil
}

// quoted writes a command as a shell reads it.
func quoted(argv []string) string {
	words := make([]string, len(argv))
	for i, a := range argv {
		words[i] = a
		if a == "" || strings.ContainsAny(a, " \t\n\"'`$&|;<>()*?[]{}~#\\") {
			words[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

func bold(s string) string { return paint("1", s) }
func dim(s string) string  { return paint("2", s) }

// paint colors for a person; a file or a pipe gets plain text.
func paint(code, s string) string {
	info, err := os.Stdout.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 || os.Getenv("NO_COLOR") != "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
