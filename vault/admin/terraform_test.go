package admin_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"batchwarden/vault/admin"
)

// installed is where the same text lies for those who do not run the program.
const installed = "../../installer/vault"

func TestTerraformFilesAreWhatInitPrints(t *testing.T) {
	files := admin.Terraform(admin.DefaultMount, admin.DefaultAuthMount)
	named := map[string]bool{"README.md": true}
	for _, f := range files {
		named[filepath.FromSlash(f.Name)] = true
		path := filepath.Join(installed, filepath.FromSlash(f.Name))
		if os.Getenv("BATCHWARDEN_WRITE") != "" {
			must(t, os.MkdirAll(filepath.Dir(path), 0o755))
			must(t, os.WriteFile(path, []byte(f.Text), 0o644))
		}
		got, err := os.ReadFile(path)
		must(t, err)
		if string(got) != f.Text {
			t.Errorf("%s is not what the program prints; BATCHWARDEN_WRITE=1 go test writes it", f.Name)
		}
	}
	must(t, filepath.WalkDir(installed, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(installed, path)
		if err == nil && !d.IsDir() && !named[rel] {
			t.Errorf("%s is nobody's", rel)
		}
		return err
	}))
	text, err := admin.Plan("terraform", "", "")
	must(t, err)
	for _, f := range files {
		if !strings.Contains(text, "# ---- file "+f.Name+"\n"+f.Text) {
			t.Errorf("the plan does not print %s", f.Name)
		}
	}
}

// TestTerraformStructure checks that every name that is used is there, and that
// every one that is there is used.
func TestTerraformStructure(t *testing.T) {
	variable := regexp.MustCompile(`(?m)^variable "(\w+)"`)
	resource := regexp.MustCompile(`(?m)^resource "(\w+)" "(\w+)"`)
	heredoc := regexp.MustCompile(`(?s)<<-EOT\n.*?\n  EOT\n`)
	use := regexp.MustCompile(`\b(var|vault_\w+)\.(\w+)`)
	modules := map[string]string{}
	for _, f := range admin.Terraform(admin.DefaultMount, admin.DefaultAuthMount) {
		modules[filepath.Dir(filepath.FromSlash(f.Name))] += f.Text
	}
	for dir, text := range modules {
		there := map[string]bool{}
		for _, m := range variable.FindAllStringSubmatch(text, -1) {
			there["var."+m[1]] = true
		}
		for _, m := range resource.FindAllStringSubmatch(text, -1) {
			there[m[1]+"."+m[2]] = true
		}
		used := map[string]bool{}
		for _, m := range use.FindAllString(text, -1) {
			used[m] = true
			if !there[m] {
				t.Errorf("%s: %s is used and not there", dir, m)
			}
		}
		for name := range there {
			if strings.HasPrefix(name, "var.") && !used[name] {
				t.Errorf("%s: %s is not used", dir, name)
			}
		}
		if strings.Contains(heredoc.ReplaceAllString(text, ""), "EOT") {
			t.Errorf("%s: a text that does not end", dir)
		}
	}
}

// TestTerraformLayout checks that the files look as "terraform fmt" leaves them.
func TestTerraformLayout(t *testing.T) {
	for _, f := range admin.Terraform(admin.DefaultMount, admin.DefaultAuthMount) {
		for _, fault := range layout(f.Text) {
			t.Errorf("%s:%s", f.Name, fault)
		}
	}
	for text, want := range map[string]string{
		"a {\n  b = [\n    1,\n  ]\n}\n":                              "",
		"a {\n  long = 1\n  b = f({\n    c = 1\n  })\n\n  d = 1\n}\n": "",
		"a {\n  b = 1\n  long = 1\n}\n":                               "3: the = stands elsewhere than above",
		"a {\n   b = 1\n}\n":                                          "2: 3 blanks, want 2",
		"a {\n  b = f(\n    1\n    )\n}\n":                            "4: 4 blanks, want 2",
		"a {\n  b = (1]\n}\n":                                         "2: ] closes (",
		"a {\n":                                                       "1: { is not closed",
		"}\n":                                                         "1: } closes nothing",
		"a {\n  b = <<-EOT\n[ x\n  EOT\n}\n":                          "",
	} {
		if got := strings.Join(layout(text), "; "); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// layout says where a file of Terraform's is not written as it should be. The
// texts of its policies, from <<-EOT to EOT, it passes over.
func layout(text string) (faults []string) {
	fault := func(line int, format string, args ...any) {
		faults = append(faults, fmt.Sprintf("%d: ", line)+fmt.Sprintf(format, args...))
	}
	attribute := regexp.MustCompile(`^( *\w+ *)= \S`)
	type bracket struct {
		rune
		line int
	}
	var open []bracket
	above, policy := 0, false // above is where the line before has its =
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if policy = policy && line != "  EOT"; policy || line == "  EOT" {
			continue
		}
		lines := map[int]bool{} // with a bracket that is open where this one begins
		body := strings.TrimLeft(line, " ")
		closers := len(body) - len(strings.TrimLeft(body, "})]"))
		for _, b := range open[:max(len(open)-closers, 0)] {
			lines[b.line] = true
		}
		if got, want := len(line)-len(body), 2*len(lines); line != "" && got != want {
			fault(i+1, "%d blanks, want %d", got, want)
		}
		depth := len(open)
		for _, r := range body {
			switch at := strings.IndexRune("}{)(][", r); {
			case body[0] == '#' || at < 0:
			case at%2 == 1:
				open = append(open, bracket{r, i + 1})
			case len(open) == 0:
				fault(i+1, "%c closes nothing", r)
			case open[len(open)-1].rune != rune("}{)(]["[at+1]):
				fault(i+1, "%c closes %c", r, open[len(open)-1].rune)
				fallthrough
			default:
				open = open[:len(open)-1]
			}
		}
		equals := 0
		if m := attribute.FindStringSubmatch(line); m != nil && len(open) == depth {
			equals = len(m[1])
		}
		if above > 0 && equals > 0 && above != equals {
			fault(i+1, "the = stands elsewhere than above")
		}
		above, policy = equals, strings.HasSuffix(line, "<<-EOT")
	}
	for _, b := range open {
		fault(b.line, "%c is not closed", b.rune)
	}
	return faults
}
