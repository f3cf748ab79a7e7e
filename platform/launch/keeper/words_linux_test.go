package keeper

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"batchwarden/platform/account"
	"batchwarden/platform/launch"
	"batchwarden/platform/launch/become"
	"batchwarden/platform/pam"
)

func TestWords(t *testing.T) {
	text := func(s string, args ...string) *launch.Script { return &launch.Script{Text: []byte(s), Args: args} }
	for _, c := range []struct {
		spec  launch.Spec
		shell string
		want  string // file and words, with bars between
	}{
		{launch.Spec{Argv: []string{"a", "b"}}, "/bin/ksh", "|a|b"},
		{launch.Spec{Argv: []string{"a", "b c"}, Login: true}, "/bin/ksh", `/bin/ksh|-ksh|-c|exec "$@"|ksh|a|b c`},
		{launch.Spec{CommandLine: "a | b"}, "/bin/ksh", "/bin/ksh|ksh|-c|a | b"},
		{launch.Spec{CommandLine: "a", Login: true}, "", "/bin/sh|-sh|-c|a"},
		{launch.Spec{Script: text("echo")}, "/bin/ksh", "|/bin/ksh|/s"},
		{launch.Spec{Script: text("echo", "x", "")}, "", "|/bin/sh|/s|x|"},
		{launch.Spec{Script: text("#!/bin/bash\nx", "y")}, "/bin/ksh", "|/bin/bash|/s|y"},
		{launch.Spec{Script: text("#! \t/bin/awk  -f -v \t\nx")}, "/bin/ksh", "|/bin/awk|-f -v|/s"},
		{launch.Spec{Script: text("#!/bin/bash")}, "", "|/bin/bash|/s"},
		{launch.Spec{Script: text("#!\n")}, "/bin/ksh", "|/bin/ksh|/s"},
		{launch.Spec{Script: text("\n#!/bin/bash")}, "/bin/ksh", "|/bin/ksh|/s"},
		{launch.Spec{Script: &launch.Script{Text: []byte("#!/x"), Interpreter: []string{"perl", "-w"}}}, "/bin/ksh", "|perl|-w|/s"},
		{launch.Spec{Script: text("#!/bin/bash"), Login: true}, "/bin/ksh", `/bin/ksh|-ksh|-c|exec "$@"|ksh|/bin/bash|/s`},
	} {
		file, argv := words(&c.spec, &account.Account{Shell: c.shell}, "/s")
		if got := strings.Join(append([]string{file}, argv...), "|"); got != c.want {
			t.Errorf("%+v: got %s, want %s", c.spec, got, c.want)
		}
	}
}

// TestLimitsOf: what PAM sets, what the request asks for, and what the host's owner leaves of both.
func TestLimitsOf(t *testing.T) {
	limit := func(soft, hard uint64) become.Limit {
		return become.Limit{Resource: unix.RLIMIT_NOFILE, Soft: soft, Hard: hard}
	}
	set := []pam.Limit{{Resource: unix.RLIMIT_NOFILE, Soft: 50, Hard: 100}}
	var inherited unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &inherited); err != nil {
		t.Fatal(err)
	}
	type numbers map[string]uint64
	for _, c := range []struct {
		name           string
		asked          numbers
		set            []pam.Limit
		ceilings       numbers
		want           []become.Limit
		refusedBecause string
	}{
		{name: "nothing"},
		{name: "the request's", asked: numbers{"nofile": 7}, want: []become.Limit{limit(7, 7)}},
		{name: "PAM's", set: set, want: []become.Limit{limit(50, 100)}},
		{name: "the request's below PAM's", asked: numbers{"nofile": 70}, set: set, want: []become.Limit{limit(70, 70)}},
		{name: "the request's above PAM's", asked: numbers{"nofile": 101}, set: set, refusedBecause: "nofile: 101 is above 100"},
		{name: "PAM's above max", set: set, ceilings: numbers{"nofile": 60}, want: []become.Limit{limit(50, 60)}},
		{name: "even its soft one", set: set, ceilings: numbers{"nofile": 40}, want: []become.Limit{limit(40, 40)}},
		{name: "PAM's below max", set: set, ceilings: numbers{"nofile": 900}, want: []become.Limit{limit(50, 100)}},
		{name: "what is inherited, above max", ceilings: numbers{"nofile": 3}, want: []become.Limit{limit(3, 3)}},
		{name: "what is inherited, below max", ceilings: numbers{"nofile": inherited.Max}},
	} {
		got, err := limitsOf(c.asked, c.set, c.ceilings)
		if c.refusedBecause != "" {
			refusal(t, err, launch.CodeRefused, c.refusedBecause)
			continue
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v %v, want %v", c.name, got, err, c.want)
		}
	}
}
