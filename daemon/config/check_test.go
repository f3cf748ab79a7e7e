package config

import (
	"strings"
	"testing"
)

// TestCheck has one fault in each document, and wants exactly that one.
func TestCheck(t *testing.T) {
	client := func(members string) string {
		return "clients: [{name: c, match: {user: u}, realms: [opcon], " + members + "}]"
	}
	for _, c := range []struct{ text, want string }{
		{"version: 0", "version: 0 is not supported"},
		{"version: '1'", "version: must be a whole number"},
		{"machine: ''", "machine: is empty"},
		{"machine: ..", `machine: ".." is not a name`},
		{"machine: dé", `machine: "dé" is not a name`},
		{"machine: " + strings.Repeat("x", 62), "longer than 61 characters"},
		{"platforms: []", "platforms: is empty"},
		{"platforms: [Unix]", `platforms[0]: "Unix" is unknown`},
		{"groups: [a/b]", `groups[0]: "a/b" is not a name`},
		{"groups: [a, a]", `groups[1]: "a" is there already, as groups[0]`},
		{"state_dir: ''", "state_dir: is empty"},
		{"state_dir: /a/../b", "state_dir: \"/a/../b\" has .. in it"},
		{"state_dir: ${HOME}/x", `state_dir: "${HOME}/x" is not an absolute path`},
		{"state_dir: /var/lib/batchwarden-launcher/", "launcher.state_dir: is the same as state_dir"},
		{"socket: run.sock", "socket: \"run.sock\" is not an absolute path"},
		{"socket: /" + strings.Repeat("x", 107), "socket: is 108 octets long; a socket's path has at most 107"},
		{"socket: /run/batchwarden-launcher/launcher.sock", "launcher.socket: is the same as socket"},
		{"launcher: {cgroup_root: none}", "launcher.cgroup_root: \"none\" is not an absolute path"},
		{"users: {daemon: root}", "users.daemon: is root"},
		{"users: {sync: root}", "users.sync: is root"},
		{"users: {sync: batchwarden}", "users.sync: is the same as users.daemon"},
		{"users: {daemon: 'a b'}", `users.daemon: "a b" is not the name of a user or group`},
		{"users: {daemon: 1000}", `users.daemon: must be a text; quote it: "1000"`},
		{"sync: {interval: 0s}", "sync.interval: must be more than zero"},
		{"sync: {interval: -1s}", `sync.interval: "-1s" is negative`},
		{"sync: {sweep: 0s}", "sync.sweep: must be more than zero"},
		{"sync: {max_stale: 0s}", "sync.max_stale: must be more than zero"},
		{"sync: {policy_max_stale: 7d}", "sync.policy_max_stale: "},
		{"local_vault: {key: 'keyfile:key'}", "local_vault.key: \"key\" is not an absolute path"},
		{"local_vault: {key: 'keyfile:'}", "local_vault.key: \"keyfile:\" is not one of keyfile:PATH, credential, tpm2, tpm2:PATH, dpapi"},
		{"local_vault: {key: 'tpm2:x'}", "local_vault.key: \"x\" is not an absolute path"},
		{"local_vault: {key: 'tpm2:'}", "local_vault.key: \"tpm2:\" is not one of"},
		{"local_vault: {key: 'credential:/x'}", "local_vault.key: \"credential:/x\" is not one of"},
		{"local_vault: {key: secret}", "local_vault.key: \"secret\" is not one of"},
		{"operators: {users: ['']}", "operators.users[0]: \"\" is not the name"},
		{"operators: {groups: ['a:b']}", "operators.groups[0]: \"a:b\" is not the name"},
		{"jobs: {keep: 0s}", "jobs.keep: must be more than zero"},
		{"jobs: {capture_max: '0'}", "jobs.capture_max: must be more than zero"},
		{"jobs: {grace: 0s}", "jobs.grace: must be more than zero"},
		{"jobs: {max_running: 0}", "jobs.max_running: must be more than zero, not 0"},
		{"audit: {file: a.jsonl}", "audit.file: \"a.jsonl\" is not an absolute path"},
		{"audit: {sync: never}", `audit.sync: "never" is neither "always" nor a duration`},
		{"audit: {sync: 0s}", "audit.sync: must be more than zero"},
		{"audit: {rotate: 1GB}", `audit.rotate: "1GB" is not a size`},
		{"audit: {keep: -1}", "audit.keep: must be more than zero, not -1"},
		{"audit: {argv: 'yes'}", "audit.argv: must be true or false"},
		{"log: {level: trace}", `log.level: "trace" is unknown; known: debug, info, warn, error`},
		{"log: {format: xml}", `log.format: "xml" is unknown; known: auto, text, json`},
		{"wat: 1", "wat: is not known; known here: version, machine"},
		{"vault: {ca_file: ca.pem, " + auth + "}", "vault.ca_file: \"ca.pem\" is not an absolute path"},
		{"vault: {mount: '', " + auth + "}", "vault.mount: is empty"},
		{"vault: {mount: batch/, " + auth + "}", "vault.mount: \"batch/\" begins or ends with a slash"},
		{"vault: {mount: a//b, " + auth + "}", "vault.mount: \"a//b\" is not the path of a mount"},
		{"vault: {namespace: a/../b, " + auth + "}", "vault.namespace: \"a/../b\" is not the path of a mount"},
		{"vault: {address: https://v, auth: {method: ldap}}", `vault.auth.method: "ldap" is unknown; known: approle, cert, jwt, token_file`},
		{"vault: {address: https://v, auth: {secret_id_file: /s}}", "vault.auth.role_id_file: is missing; method approle needs it"},
		{"vault: {address: https://v, auth: {role_id_file: /r, secret_id_file: s}}", "vault.auth.secret_id_file: \"s\" is not an absolute path"},
		{"vault: {address: https://v, auth: {role_id_file: /r, secret_id_file: /s, jwt_file: /j}}", "vault.auth.jwt_file: is not used by method approle; remove it"},
		{"vault: {address: https://v, auth: {role_id_file: /r, secret_id_file: /s, role: x}}", "vault.auth.role: is not used by method approle; remove it"},
		{"vault: {address: https://v, auth: {method: token_file}}", "vault.auth.token_file: is missing; method token_file needs it"},
		{"vault: {address: https://v, auth: {method: token_file, mount: t, token_file: /t}}", "vault.auth.mount: is not used by method token_file; remove it"},
		{"vault: {address: https://v, auth: {method: token_file, token_file: /t, role: r}}", "vault.auth.role: is not used by method token_file; remove it"},
		{"vault: {address: https://v, auth: {method: cert, key_file: /k}}", "vault.auth.cert_file: is missing; method cert needs it"},
		{"vault: {address: https://v, auth: {method: cert, cert_file: /c}}", "vault.auth.key_file: is missing; method cert needs it"},
		{"vault: {address: https://v, auth: {method: cert, cert_file: /c, key_file: k}}", `vault.auth.key_file: "k" is not an absolute path`},
		{"vault: {address: https://v, auth: {method: cert, cert_file: /c, key_file: /k, role_id_file: /r}}", "vault.auth.role_id_file: is not used by method cert; remove it"},
		{"vault: {address: https://v, auth: {method: cert, cert_file: /c, key_file: /k, role: a/b}}", `vault.auth.role: "a/b" is not a name`},
		{"vault: {address: 'http://127.0.0.1:8200', auth: {method: cert, cert_file: /c, key_file: /k}}", "vault.address: \"http://127.0.0.1:8200\" has no TLS"},
		{"vault: {address: https://v, auth: {method: jwt}}", "vault.auth.jwt_file: is missing; method jwt needs it"},
		{"vault: {address: https://v, auth: {method: jwt, jwt_file: /j, cert_file: /c}}", "vault.auth.cert_file: is not used by method jwt; remove it"},
		{"vault: {address: https://v, auth: {method: jwt, jwt_file: /j, secret_id_wrapped: true}}", "vault.auth.secret_id_wrapped: is not used by method jwt; remove it"},
		{"realms: {'': {model: opcon, agent: A}}", "is empty; a name has"},
		{"realms: {a/b: {model: opcon, agent: A}}", `realms.a/b: "a/b" is not a name`},
		{"realms: {a: {agent: A}}", "realms.a.model: is missing; known: automic, opcon, stonebranch"},
		{"realms: {a: {model: OpCon, agent: A}}", `realms.a.model: "OpCon" is unknown`},
		{"realms: {a: {model: opcon}}", "realms.a.agent: is missing"},
		{"realms: {a: {model: opcon, agent: A, agent_services: [' ']}}", "realms.a.agent_services[0]: is empty"},
		{"clients: [{match: {user: u}}]", "clients[0].name: is empty"},
		{"clients: [{name: a b, match: {user: u}}]", `clients[0].name: "a b" is not a name`},
		{"clients: [{name: c}]", "clients[0].match: names neither user nor group"},
		{"clients: [{name: c, match: {user: '', group: ''}}]", "clients[0].match: names neither user nor group"},
		{"clients: [{name: c, match: {user: 'a:b'}}]", `clients[0].match.user: "a:b" is not the name`},
		{"clients: [{name: c, match: {group: ' '}}]", `clients[0].match.group: " " is not the name`},
		{"clients: [{name: c, match: {exe: /x}}]", "clients[0].match: names neither user nor group"},
		{"clients: [{name: c, match: {sha256: " + sum + "}}]", "clients[0].match: names neither user nor group"},
		{"clients: [{name: c, match: {unit: x.service}}]", "clients[0].match: names neither user nor group"},
		{"clients: [{name: c, match: {user: u, exe: lsam}}]", `clients[0].match.exe: "lsam" is not an absolute path`},
		{"clients: [{name: c, match: {user: u, exe: /opt/../lsam}}]", `clients[0].match.exe: "/opt/../lsam" has .. in it`},
		{"clients: [{name: c, match: {user: u, exe: '/opt/*'}}]", `clients[0].match.exe: "/opt/*" looks like a pattern`},
		{"clients: [{name: c, match: {user: u, exe: /opt/opcon/}}]", `clients[0].match.exe: "/opt/opcon/" is a directory`},
		{"clients: [{name: c, match: {user: u, exe: /opt//lsam}}]", `clients[0].match.exe: "/opt//lsam" is not how the system writes that path; write /opt/lsam`},
		{"clients: [{name: c, match: {user: u, exe: /opt/./lsam}}]", `clients[0].match.exe: "/opt/./lsam" is not how the system writes that path`},
		{"clients: [{name: c, match: {user: u, sha256: '" + sum[1:] + "'}}]", "is not a SHA-256 of 64 hexadecimal digits"},
		{"clients: [{name: c, match: {user: u, unit: lsam}}]", `clients[0].match.unit: "lsam" is not a service`},
		{"clients: [{name: c, match: {user: u, unit: .service}}]", `clients[0].match.unit: ".service" is not a service`},
		{"clients: [{name: c, match: {user: u, unit: '*.service'}}]", `clients[0].match.unit: "*.service" is not the name of one service`},
		{"clients: [{name: c, match: {user: u, unit: system.slice/x.service}}]", `clients[0].match.unit: "system.slice/x.service" is not the name of one service`},
		{"clients: [{name: c, match: {user: u, unit: lsam@.service}}]", `clients[0].match.unit: "lsam@.service" is a template`},
		{"clients: [{name: c, match: {user: u, uid: 7}}]", "clients[0].match.uid: is not known"},
		{"clients: [{name: c, match: {user: u}}, {name: c, match: {user: v}}]", "clients[1].name: \"c\" is the name of clients[0] in "},
		{"clients: [{name: c, match: {user: u}, realms: [other]}]", `clients[0].realms[0]: "other" is not among the realms: opcon`},
		{"clients: [{name: c, match: {user: u}, may: [authorize]}]", "clients[0].realms: is empty"},
		{client("may: [run]"), `clients[0].may[0]: "run" is unknown; known: authorize, launch, retrieve, explain`},
		{client("subjects: {users: ['']}"), "clients[0].subjects.users[0]: is empty"},
		{client("subjects: {users: ['x ']}"), `clients[0].subjects.users[0]: "x " has blanks around it`},
		{client("subjects: {roles: ['*']}"), `clients[0].subjects.roles[0]: "*" looks like a glob`},
		{client("subjects: {privileged: ['ops?']}"), `clients[0].subjects.privileged[0]: "ops?" looks like a glob`},
		{client("subjects: {privileged: ['']}"), "clients[0].subjects.privileged[0]: is empty"},
		{client("batch_users: ['{a,b}']"), `clients[0].batch_users[0]: "{a,b}" has brackets`},
		{client("rate: 200"), `clients[0].rate: must be a text; quote it: "200"`},
		{client("rate: 0/s"), `clients[0].rate: "0/s" is not a rate`},
		{client("rate: 5/d"), `clients[0].rate: "5/d" is not a rate`},
		{client("concurrent: -1"), "clients[0].concurrent: must not be negative"},
		{client("subject: {user: x}"), "clients[0].subject: is only for entries that match a credential_unit"},
		{client("object: {}"), "clients[0].object: is only for entries that match a credential_unit"},
	} {
		t.Run(c.text, func(t *testing.T) {
			text := c.text + "\n"
			if !strings.HasPrefix(text, "vault:") {
				text += "vault: {" + auth + "}\n"
			}
			if !strings.HasPrefix(text, "realms:") {
				text += "realms: {opcon: {model: opcon, agent: A}}\n"
			}
			_, _, err := Check(host(t, text))
			if got := only(t, err); !strings.Contains(got, c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

var sum = strings.Repeat("0123cdef", 8)

const auth = "address: https://v, auth: {role_id_file: /r, secret_id_file: /s}"

func TestAddress(t *testing.T) {
	const auth = ", auth: {role_id_file: /r, secret_id_file: /s}}\n"
	for _, c := range []struct{ address, want string }{
		{"https://vault.example.com:8200", ""},
		{"https://vault.example.com/behind/a/proxy/", ""},
		{"http://127.0.0.1:8200", ""},
		{"http://127.9.9.9", ""},
		{"http://[::1]:8200", ""},
		{"", "is missing"},
		{"http://localhost:8200", "sends secrets unencrypted"}, // a name is what somebody's resolver says
		{"http://10.0.0.1:8200", "sends secrets unencrypted"},
		{"http://127.0.0.1.example.com", "sends secrets unencrypted"},
		{"vault.example.com:8200", "is not"},
		{"vault.example.com", "is not a URL"},
		{"ftp://vault", "is not https"},
		{"https://", "is not a URL"},
		{"https://user:pw@vault", "user name or password"},
		{"https://vault?x=1", "query or a fragment"},
		{"https://vault/%zz", "is not a URL"},
	} {
		_, _, err := Check(host(t, "vault: {address: '"+c.address+"'"+auth))
		if c.want == "" {
			if err != nil {
				t.Errorf("%q: got %v, want no fault", c.address, err)
			}
			continue
		}
		if got := only(t, err); !strings.HasPrefix(got, "vault.address: ") || !strings.Contains(got, c.want) {
			t.Errorf("%q: got %s, want that it %s", c.address, got, c.want)
		}
	}
}

// TestPasswordInAddress: a password that was put into the address by mistake is not shown again.
func TestPasswordInAddress(t *testing.T) {
	_, _, err := Check(host(t, "vault: {address: 'https://user:canary@vault', auth: {role_id_file: /r, secret_id_file: /s}}\n"))
	if got := only(t, err); strings.Contains(got, "canary") {
		t.Errorf("got %s, want no password in it", got)
	}
}

func TestMatchGlob(t *testing.T) {
	for _, c := range []struct {
		glob, name string
		want       bool
	}{
		{"*", "", true},
		{"*", "users/payroll", true},
		{"payroll*", "payroll", true},
		{"payroll*", "payroll2", true},
		{"payroll*", "Payroll", false},
		{"payroll*", "xpayroll", false},
		{"*/DEPT", "JDOE/DEPT", true},
		{"*/DEPT", "JDOE/DEPT2", false},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"a*b*c", "a-b-b-c", true},
		{"a*b*c", "a-c-b", false},
		{"", "", true},
		{"", "x", false},
		{"a**", "a", true},
		{"*a", "aaab", false},
		{"CORP\\*", "CORP\\jdoe", true},
		{strings.Repeat("*a", 200), strings.Repeat("a", 199), false}, // in no time
	} {
		if got := MatchGlob(c.glob, c.name); got != c.want {
			t.Errorf("MatchGlob(%.40q, %.40q): got %v, want %v", c.glob, c.name, got, c.want)
		}
	}
	if !MatchAny([]string{"x", "pay*"}, "payroll") || MatchAny([]string{"x"}, "payroll") || MatchAny(nil, "") {
		t.Error("MatchAny does not say whether one of the globs fits")
	}
}
