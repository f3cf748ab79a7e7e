package main

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func pages(t *testing.T) map[string]string {
	t.Helper()
	p, err := manPages((&app{in: strings.NewReader(""), out: io.Discard, errs: io.Discard}).root(), "2026-03-04")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Every command has a page that says all of its flags, and the same program writes the same octets.
func TestManPages(t *testing.T) {
	p := pages(t)
	if !maps.Equal(p, pages(t)) {
		t.Error("two runs write different pages")
	}
	root := (&app{}).root()
	var all func(*cobra.Command)
	all = func(cmd *cobra.Command) {
		if cmd.HasParent() && !cmd.IsAvailableCommand() {
			return
		}
		page, there := p[pageName(cmd)+".1"]
		if !there {
			t.Errorf("%s has no page", cmd.CommandPath())
		}
		for _, flag := range []string{"socket", "json"} {
			if !strings.Contains(page, `\fB\-\-`+flag+`\fR`) {
				t.Errorf("%s: --%s is not in its page", cmd.CommandPath(), flag)
			}
		}
		for _, sub := range cmd.Commands() {
			all(sub)
		}
	}
	all(root)
	for name, text := range p {
		if !strings.HasPrefix(text, ".TH ") || !strings.Contains(text, ".SH NAME\n") || !strings.Contains(text, `"2026-03-04"`) {
			t.Errorf("%s: no heading: %.100q", name, text)
		}
	}
	golden(t, "batchwarden-log-level.1.golden", regexp.MustCompile(`"batchwarden [^"]*"`).ReplaceAllString(p["batchwarden-log-level.1"], `"batchwarden"`))
}

// The pages of the files say every member that the files can have.
func TestManPagesOfFiles(t *testing.T) {
	member := regexp.MustCompile("json:\"([a-z_0-9]+)")
	code, err := os.ReadFile("../../config/raw.go")
	if err != nil {
		t.Fatal(err)
	}
	main, limits, both := strings.Cut(string(code), "json:\"requesters\"")
	if !both {
		t.Fatal("raw.go has no limits")
	}
	for page, members := range map[string]string{"batchwarden.yaml.5": main, "limits.yaml.5": limits} {
		text := pages(t)[page]
		found := member.FindAllStringSubmatch(members, -1)
		if len(found) < 9 {
			t.Fatalf("%s: only %d members", page, len(found))
		}
		for _, m := range found {
			if m[1] != "by" && !regexp.MustCompile(`\b`+m[1]+`\b`).MatchString(text) {
				t.Errorf("%s does not say what %s is", page, m[1])
			}
		}
	}
}

func TestManCommand(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	dir := t.TempDir()
	if code, out, errs := command(t, "", "man", "--dir", dir); code != 0 || !strings.Contains(out, "pages below") {
		t.Fatalf("got %d, %q, %q", code, out, errs)
	}
	for _, name := range []string{"man1/batchwarden.1", "man1/batchwarden-run.1", "man5/batchwarden.yaml.5", "man5/limits.yaml.5", "man7/batchwarden-concepts.7", "man8/batchwardend.8", "man8/batchwarden-launcher.8"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(text), `"2023-11-14"`) {
			t.Errorf("%s: %v, %.80q", name, err, text)
		}
	}
	if code, _, errs := command(t, "", "man"); code != 64 || !strings.Contains(errs, "--dir") {
		t.Errorf("got %d, %q", code, errs)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "today")
	if code, _, errs := command(t, "", "man", "--dir", dir); code != 64 || !strings.Contains(errs, "SOURCE_DATE_EPOCH") {
		t.Errorf("got %d, %q", code, errs)
	}
}

func TestHelpTopics(t *testing.T) {
	code, list, errs := command(t, "", "help", "topics")
	if code != 0 || errs != "" {
		t.Fatalf("got %d, %q", code, errs)
	}
	want := []string{"realm", "subject", "batch-user", "client", "limits", "exit-codes", "offline"}
	for _, name := range want {
		code, out, errs := command(t, "", "help", name)
		if code != 0 || errs != "" || !strings.Contains(out, "\n  ") || len(out) < 300 {
			t.Errorf("help %s: got %d, %q, %q", name, code, out, errs)
		}
		if !strings.Contains(list, "  "+name+" ") {
			t.Errorf("%s is not in %s", name, list)
		}
	}
	if got := slices.Collect(func(yield func(string) bool) {
		for _, x := range topics {
			if !yield(x.name) {
				return
			}
		}
	}); !slices.Equal(got, want) {
		t.Errorf("got topics %q, want %q", got, want)
	}
}
