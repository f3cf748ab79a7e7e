package daemon_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// secrets lists every type of the module that holds octets of a password, a token or a key, or looks as if it did.
//
//	mute    it embeds secret.Mute: nothing prints, logs or encodes it
//	quiet   it embeds secret.Quiet: nothing prints or logs it; it is encoded, for the reason given
//	none    it holds no secret, for the reason given
//
// A type whose member is called like a secret, or that holds a mute or quiet type itself and no pointer to it, must be
// here. Of a mute or quiet one, the test in its package's secrets_test.go must say that it is.
const secrets = `
platform/lockmem.Buffer   mute
vault/errand.Keys         mute
vault/documents.fields    mute
vault/remote.Source       mute
vault/remote.answer       mute
vault/remote.auth         mute
vault/remote.caller       mute
vault/remote.client       mute
vault/remote.document     mute
vault/remote.keep         mute
vault/remote.kept         quiet: sealed for the next worker
vault/remote.login        mute
vault/remote.run          mute
vault/remote.session      quiet: sealed for the next worker
vault/remote.sight        mute
vault/remote.sourced      mute
vault/remote.unwrapped    quiet: sealed for the next worker
vault/remote.view         mute
vault/remote.wrapped      mute
vault/admin.Admin         mute
vault/admin.Config        mute
vault/admin.Credentials   quiet: the operator asks for them
vault/admin.document      mute

daemon/cmd/batchwarden.machineDone none: it embeds Credentials, which refuse for it
daemon/cmd/batchwarden.rekeyed     none: says where a key lies
daemon/cmd/batchwarden.answers      none: says where a key is to lie
daemon/cmd/batchwarden.setupOptions none: likewise
daemon/config.LocalVault           none: says where a key lies
daemon/config.rawLocalVault        none: says where a key lies
ipc/wire.LocalVault                none: says what kind of key it is
platform/hostkey/mint.Options      none: says what systemd-creds encrypts with
platform/account.Files             none: the name of a file
vault/sealed.Record                none: its Secret is sealed
vault/sealed.put                   none: its secret is sealed
vault/sealed.Status                none: names of keys
daemon/policy/opcon.explainer      none: a key of a map
daemon/policy/opcon.id             none: a key of a map
`

// called finds members that are called like secrets.
var called = regexp.MustCompile(`(?i)(password|passwd|secret|token|kek|passphrase|key|keys|credential)$`)

func TestSecretTypesAreListed(t *testing.T) {
	listed := map[string]string{}
	for line := range strings.Lines(secrets) {
		if name, what, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			listed[name] = strings.TrimSpace(what)
		}
	}
	faults, seen := readSecrets(t, os.DirFS(".."), listed)
	for name, what := range listed {
		kind, reason, _ := strings.Cut(what, ":")
		switch {
		case !seen[name]:
			t.Errorf("%s is listed and is no struct", name)
		case kind != "mute" && kind != "quiet" && kind != "none", kind != "mute" && reason == "":
			t.Errorf("%s: %q does not say what it is, and why", name, what)
		}
	}
	for _, fault := range faults {
		t.Error(fault)
	}
}

// TestSecretTypesAreFound shows that each rule can fail.
func TestSecretTypesAreFound(t *testing.T) {
	for text, want := range map[string]string{
		"type A struct { userPassword []byte }":                         "vault/x.A has a member userPassword and is not listed",
		"type A struct { Token string }":                                "vault/x.A has a member Token and is not listed",
		"type A struct { secret [32]byte }":                             "vault/x.A has a member secret and is not listed",
		"type A struct { keys []string }":                               "vault/x.A has a member keys and is not listed",
		"type A struct { tokenLife int }":                               "",
		"type A struct { has map[string]L }":                            "vault/x.A has a member has, which is vault/x.L, and is not listed",
		"type A struct { L }":                                           "vault/x.A has a member L, which is vault/x.L, and is not listed",
		"type A struct { l *L }":                                        "",
		"import m \"batchwarden/vault/y\"; type A struct { all []m.K }": "vault/x.A has a member all, which is vault/y.K, and is not listed",
		"type M struct { key string }":                                  "vault/x.M is listed as mute and does not embed secret.Mute; vault/x/secrets_test.go does not name M{}",
	} {
		files := mapFS{"vault/x/x.go": "package x\n" + text}
		faults, _ := readSecrets(t, files.fs(t), map[string]string{"vault/x.L": "mute", "vault/y.K": "quiet: x", "vault/x.M": "mute"})
		if got := strings.Join(faults, "; "); got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}

// mapFS are files by name; fs lays them into a directory.
type mapFS map[string]string

func (m mapFS) fs(t *testing.T) fs.FS {
	dir := t.TempDir()
	for name, text := range m {
		if err := os.MkdirAll(filepath.Join(dir, path.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return os.DirFS(dir)
}

// readSecrets goes through the structs of all that is installed.
func readSecrets(t *testing.T, module fs.FS, listed map[string]string) (faults []string, seen map[string]bool) {
	t.Helper()
	seen = map[string]bool{}
	found := map[string]bool{}
	err := fs.WalkDir(module, ".", func(name string, d fs.DirEntry, err error) error {
		pkg := path.Dir(name)
		_, support := testSupport[name]
		switch {
		case err != nil:
			return err
		case d.IsDir() && (support || name == "build" || name == ".git" || name == "installer" || name == "vault/devserver"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		text, err := fs.ReadFile(module, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(gotoken.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		imports := map[string]string{}
		for _, i := range file.Imports {
			p := strings.TrimPrefix(strings.Trim(i.Path.Value, `"`), ours)
			local := path.Base(p)
			if i.Name != nil {
				local = i.Name.Name
			}
			imports[local] = p
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, is := n.(*ast.TypeSpec)
			if !is {
				return true
			}
			s, is := spec.Type.(*ast.StructType)
			if !is {
				return true
			}
			full := pkg + "." + spec.Name.Name
			seen[full] = true
			for _, fault := range structFaults(module, pkg, spec.Name.Name, s, imports, listed) {
				found[fault] = true
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(found)), seen
}

// structFaults says what is wrong with one struct.
func structFaults(module fs.FS, pkg, name string, s *ast.StructType, imports, listed map[string]string) (faults []string) {
	full := pkg + "." + name
	kind, _, _ := strings.Cut(listed[full], ":")
	embeds := map[string]bool{}
	for _, f := range s.Fields.List {
		held := heldType(f.Type, pkg, imports)
		names := f.Names
		if len(names) == 0 {
			embeds[held] = true
			names = []*ast.Ident{{Name: held[strings.LastIndex(held, ".")+1:]}}
		}
		for _, n := range names {
			switch {
			case kind != "":
			case listed[held] != "" && !strings.HasPrefix(listed[held], "none"):
				faults = append(faults, fmt.Sprintf("%s has a member %s, which is %s, and is not listed", full, n.Name, held))
			case called.MatchString(n.Name) && octets(f.Type):
				faults = append(faults, fmt.Sprintf("%s has a member %s and is not listed", full, n.Name))
			}
		}
	}
	if want := map[string]string{"mute": "Mute", "quiet": "Quiet"}[kind]; want != "" {
		if !embeds["platform/secret."+want] {
			faults = append(faults, fmt.Sprintf("%s is listed as %s and does not embed secret.%s", full, kind, want))
		}
		text, err := fs.ReadFile(module, pkg+"/secrets_test.go")
		if err != nil && pkg == "platform/lockmem" {
			return faults // its own test does more
		}
		if !strings.Contains(string(text), " "+name+"{}") && !strings.Contains(string(text), "("+name+"{}") {
			faults = append(faults, fmt.Sprintf("%s/secrets_test.go does not name %s{}", pkg, name))
		}
	}
	return faults
}

// heldType is the named type that a member is made of, "" for what is behind a pointer or has no name.
func heldType(e ast.Expr, pkg string, imports map[string]string) string {
	switch e := e.(type) {
	case *ast.Ident:
		return pkg + "." + e.Name
	case *ast.SelectorExpr:
		if x, is := e.X.(*ast.Ident); is {
			return imports[x.Name] + "." + e.Sel.Name
		}
	case *ast.ArrayType:
		return heldType(e.Elt, pkg, imports)
	case *ast.MapType:
		return heldType(e.Value, pkg, imports)
	}
	return ""
}

// octets reports text, octets and lists of them.
func octets(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name == "string" || e.Name == "byte" || e.Name == "any"
	case *ast.SelectorExpr:
		return e.Sel.Name == "RawMessage"
	case *ast.ArrayType:
		return octets(e.Elt)
	case *ast.MapType:
		return octets(e.Value)
	}
	return false
}
