package config

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestParseLimits(t *testing.T) {
	text, err := os.ReadFile("testdata/limits.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseLimits("limits.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	want := &Limits{
		Requesters: []string{"opcon"},
		MinUID:     1000,
		MinGID:     100,
		AllowUsers: []string{},
		DenyUsers:  []string{"backup"},
		DenyGroups: []string{"root", "disk", "shadow", "docker", "lxd", "sudo", "wheel", "adm"},
		AllowCommands: []Command{
			{Path: "/opt/pay/"},
			{Path: "/bin/x", SHA256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		},
		AllowEnv: []string{"JAVA_HOME"},
		Max:      map[string]uint64{"nofile": 65536},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	if !got.AllowCommands[0].Dir() || got.AllowCommands[1].Dir() {
		t.Error("a path that ends with a slash is a directory, another is not")
	}
}

func TestLimitsDefaults(t *testing.T) {
	got, err := ParseLimits("limits.yaml", []byte("version: 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := &Limits{MinUID: 1000, MinGID: 100, DenyGroups: []string{"root", "disk", "shadow", "docker", "lxd", "sudo", "wheel", "adm"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestLimitsFaults(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "limits.yaml"},
		{"version: 2", "version: 2 is not supported"},
		{"requesters: opcon", "requesters: must be a list"},
		{"requesters: ['']", "requesters[0]: \"\" is not the name"},
		{"requester: [opcon]", "requester: is not known"},
		{"allow_root: 'yes'", "allow_root: must be true or false"},
		{"min_uid: -1", "min_uid: must be a whole number"},
		{"min_gid: 4294967296", "min_gid: must be a whole number"},
		{"deny_users: [1000]", `deny_users[0]: must be a text; quote it: "1000"`},
		{"allow_users: ['a b']", `allow_users[0]: "a b" is not the name`},
		{"deny_groups: ['/x']", `deny_groups[0]: "/x" is not the name`},
		{"allow_commands: [{path: bin/x}]", `allow_commands[0].path: "bin/x" is not an absolute path`},
		{"allow_commands: [{sha256: ''}]", "allow_commands[0].path: is empty"},
		{"allow_commands: [{path: /a/../b}]", "allow_commands[0].path: \"/a/../b\" has .. in it"},
		{"allow_commands: [{path: /x, sha256: abc}]", `allow_commands[0].sha256: "abc" is not a SHA-256`},
		{"allow_commands: [{path: /x/, sha256: " + strings.Repeat("a", 64) + "}]", "allow_commands[0].sha256: is for a file"},
		{"allow_commands: [/x]", "allow_commands[0]: must be an object"},
		{"allow_env: ['A=b']", `allow_env[0]: "A=b" is not the name of an environment variable`},
		{"allow_env: ['LD_*']", `allow_env[0]: "LD_*" is not the name of an environment variable`},
		{"max: {files: 1}", "max.files: is unknown; known: as, core"},
		{"max: {nofile: many}", "max.nofile: must be a whole number"},
	} {
		_, err := ParseLimits("limits.yaml", []byte(c.text+"\n"))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: got %v, want the one fault %s", c.text, err, c.want)
		}
	}
}
