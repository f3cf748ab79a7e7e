package admin_test

import (
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

// TestTerraformStructure checks what can be checked without a parser of the
// language: brackets and texts that end, and that every name that is used is there.
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
		rest := heredoc.ReplaceAllString(text, "")
		if strings.Contains(rest, "EOT") {
			t.Errorf("%s: a text that does not end", dir)
		}
		for _, pair := range []string{"{}", "()", "[]"} {
			if strings.Count(rest, pair[:1]) != strings.Count(rest, pair[1:]) {
				t.Errorf("%s: unequal numbers of %s", dir, pair)
			}
		}
	}
}
