package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"batchwarden/ipc/wire"
)

// remedy is the one thing to do about the first step of a launch that is not passed.
type remedy struct {
	Who     string `json:"who"`               // can do it
	What    string `json:"what"`              // in words
	Where   string `json:"where,omitempty"`   // the file and line, or the document in Vault
	Command string `json:"command,omitempty"` // that does it
}

func (c *remedy) text() string {
	var p page
	p.row("To change that:")
	p.row("  who", c.Who)
	p.row("  what", c.What)
	if c.Where != "" {
		p.row("  where", c.Where)
	}
	if c.Command != "" {
		p.row("  command", c.Command)
	}
	return p.String()
}

// short is the remedy in one line.
func (c *remedy) short() string {
	return c.Who + ": " + c.What + named(" (", c.Where) + strings.Repeat(")", min(1, len(c.Where))) + named(": ", c.Command)
}

// Who changes what.
const (
	whoAsks    = "whoever asks"
	configurer = "root of this host, in the service's configuration"
	owner      = "the owner of this host (root), in limits.yaml"
	hostRoot   = "root of this host"
	operator   = "an operator of this machine"
	vaultAdmin = "whoever keeps this machine's documents in Vault"
)

// remedyFor says what to change for the first step that is not passed; nil when all are.
func remedyFor(d *wire.DryRun, body *wire.Launch) *remedy {
	first, _ := refusals(d)
	if first == nil {
		return nil
	}
	e := d.Explained
	if e == nil {
		e = &wire.Explains{}
	}
	c := situation{Explains: e, check: first, body: body}
	if made := c.byStep(); made != nil {
		return made
	}
	return general(first.Code)
}

// general is what the code alone says.
func general(code string) *remedy {
	return &remedy{Who: operator, What: cmp.Or(nextByCode[code], "The reason says it; batchwarden status shows more.")}
}

// situation is what is known when a step is not passed.
type situation struct {
	*wire.Explains
	check *wire.Check
	body  *wire.Launch
}

func (s *situation) byStep() *remedy {
	switch s.check.Code {
	case wire.CallerUnknown, wire.CallerForbidden:
		return s.entryRemedy()
	case wire.RequestInvalid:
		return &remedy{Who: whoAsks, What: "mend the request: " + s.check.Detail}
	case wire.IDConflict:
		return &remedy{Who: whoAsks, What: "give another id; this one was used for a launch with another body"}
	case wire.MachineSuspended:
		return &remedy{Who: operator, What: "let jobs be started again", Command: "batchwarden resume"}
	case wire.LauncherUnavailable:
		return &remedy{Who: hostRoot, What: "start the launcher; batchwarden status says why it does not answer", Command: "systemctl start batchwarden-launcher"}
	case wire.RealmUnknown:
		return &remedy{Who: configurer, What: fmt.Sprintf("add realm %q under realms, if it is not just mistyped (batchwarden status lists them), then batchwarden reload", s.body.Realm), Where: s.Config}
	case wire.PolicyInvalid, wire.PolicyStale:
		return s.documentRemedy()
	case wire.PolicyDenied:
		return s.policyRemedy()
	case wire.Overloaded:
		return &remedy{Who: operator, What: "wait until a job has ended, or raise jobs.max_running and restart the launcher", Where: s.Config}
	case wire.LimitsRefused:
		if s.check.Step == "launcher" {
			return &remedy{Who: hostRoot, What: "run the launcher as root, as its unit does", Command: "systemctl restart batchwarden-launcher"}
		}
		return s.limitsRemedy()
	}
	return s.userRemedy()
}

// entryRemedy is what to add to the client entry.
func (s *situation) entryRemedy() *remedy {
	add := func(format string, args ...any) *remedy {
		return &remedy{Who: configurer, What: fmt.Sprintf(format, args...) + ", then batchwarden reload", Where: s.Entry}
	}
	switch s.check.Step {
	case "caller":
		switch {
		case s.Client == "":
			return &remedy{Who: operator, What: "say whose launch it would be", Command: "batchwarden explain --client NAME …"}
		case s.check.Code == wire.CallerUnknown:
			return add("write an account that exists into match of client entry %q", s.Client)
		}
		return add("add launch to may of client entry %q", s.Client)
	case "realm":
		return add("add %s to realms of client entry %q", s.body.Realm, s.Client)
	case "subject":
		list, name := "users", s.body.Subject.User
		if role := quoted(s.check.Detail, "may not name role "); role != "" {
			list, name = "roles", role
		} else if role := between(s.check.Detail, "is privileged (", ")"); role != "" {
			list, name = "privileged", cmp.Or(s.body.Subject.User, role)
		}
		return add("add %q to subjects.%s of client entry %q", name, list, s.Client)
	case "batch_user":
		return add("add %q to batch_users of client entry %q", s.body.BatchUser, s.Client)
	case "requester":
		return &remedy{Who: whoAsks, What: "ask again: the process that asked has changed meanwhile"}
	}
	return nil
}

// documentRemedy is about a policy document that cannot decide.
func (s *situation) documentRemedy() *remedy {
	state, scope := "missing", ""
	if s.Policy != nil {
		state, scope = s.Policy.State, s.Policy.Scope
	}
	where := ""
	if scope != "" {
		where = "in Vault: " + scope + "/policies/" + s.body.Realm
	}
	switch state {
	case "missing":
		return &remedy{Who: vaultAdmin, What: fmt.Sprintf("put a policy document for realm %s, then batchwarden sync", s.body.Realm),
			Command: "batchwarden admin policy put " + word(s.body.Realm) + " FILE" + s.machineFlag() + " --yes"}
	case "stale":
		return &remedy{Who: operator, What: "let this machine reach Vault again; batchwarden status says what is wrong", Where: where, Command: "batchwarden sync"}
	}
	return &remedy{Who: vaultAdmin, What: "mend the document's faults; batchwarden status lists them", Where: where, Command: "batchwarden policy lint FILE"}
}

// userRemedy is about the batch user, its account and what it would run.
func (s *situation) userRemedy() *remedy {
	name, account, put := s.body.BatchUser, "", ""
	if u := s.BatchUser; u != nil {
		name, account = u.Name, u.Username
		put = "batchwarden admin batch-user put " + word(u.Name) + scopeFlag(u.Scope)
	}
	if s.check.Code == wire.BatchUserUnknown {
		put = "batchwarden admin batch-user put " + word(name) + s.machineFlag() + " --username ACCOUNT"
	}
	return userRemedy(s.check, name, account, put)
}

// machineFlag names this machine's own scope to batchwarden admin.
func (s *situation) machineFlag() string { return " --machine " + word(cmp.Or(s.Machine, "MACHINE")) }

// userRemedy is that of a step or a failed job. put is the command that changes the batch user, "" where it is not known.
func userRemedy(c *wire.Check, name, account, put string) *remedy {
	with := func(command, rest string) string {
		if command == "" {
			return ""
		}
		return command + rest
	}
	switch c.Code {
	case wire.BatchUserUnknown:
		return &remedy{Who: vaultAdmin, What: fmt.Sprintf("make batch user %q, if it is not just mistyped (batchwarden batch-users lists them), then batchwarden sync", name),
			Command: put}
	case wire.BatchUserAmbiguous:
		return &remedy{Who: vaultAdmin, What: fmt.Sprintf("take the name %q from one of the two documents that have it; batchwarden status names them", name)}
	case wire.BatchUserNotAllowed:
		if strings.Contains(c.Detail, "is for platform") {
			return &remedy{Who: vaultAdmin, What: "it is another platform's batch user; if it should not be, change its platform, then batchwarden sync", Command: with(put, " --os-platform unix")}
		}
		return &remedy{Who: vaultAdmin, What: "let the batch user be launched, then batchwarden sync", Command: with(put, " --launch")}
	case wire.CredentialExpired:
		return &remedy{Who: vaultAdmin, What: "give the batch user a later end, then batchwarden sync", Command: with(put, " --expires 2160h")}
	case wire.CredentialStale:
		return &remedy{Who: operator, What: "let this machine reach Vault again; batchwarden status says what is wrong", Command: "batchwarden sync"}
	case wire.CredentialMissing, wire.CredentialRejected:
		return &remedy{Who: vaultAdmin, What: "put the right password into Vault, then batchwarden sync", Command: "batchwarden admin password " + word(name) + " {--machine M|--group G|--platform P} --stdin"}
	case wire.AccountMissing:
		if group := quoted(c.Detail, "is not in a group "); group != "" {
			return &remedy{Who: hostRoot, What: fmt.Sprintf("put account %s into group %s, or change the batch user's group", account, group), Command: "usermod -aG " + word(group) + " " + word(account)}
		}
		return &remedy{Who: hostRoot, What: fmt.Sprintf("make account %s, or change the batch user's username", account), Command: "useradd --create-home " + word(account)}
	case wire.AccountLocked:
		return &remedy{Who: hostRoot, What: "unlock account " + account + "; where it is failed attempts that locked it, faillock --reset", Command: "passwd --unlock " + word(account)}
	case wire.AccountExpired:
		return &remedy{Who: hostRoot, What: "extend account " + account + "; where it is the password that has expired, change that", Command: "chage --expiredate -1 " + word(account)}
	case wire.AccountChanged:
		return &remedy{Who: whoAsks, What: "launch it again: the account changed while it was being started"}
	case "chdir.failed":
		return &remedy{Who: whoAsks, What: "name a directory that is there and that account " + account + " may enter, with dir, or make the account's home"}
	case "exec.not_found":
		return &remedy{Who: whoAsks, What: "name a command that is there, or install it: " + c.Detail}
	case "exec.forbidden":
		return &remedy{Who: hostRoot, What: "make the command a file that account " + account + " may execute, and that nobody but it and root can write, its directories neither: " + c.Detail}
	case "job.timeout":
		return &remedy{Who: whoAsks, What: "give the job more time with timeout, or see why it took so long"}
	}
	return nil
}

var limitsKey = regexp.MustCompile(`^limits\.yaml: ([a-z_]+)((?:\.[a-z]+)?): (.*)$`)

// limitsRemedy is the line of limits.yaml that refuses.
func (s *situation) limitsRemedy() *remedy {
	file := filepath.Join(filepath.Dir(s.Config), "limits.yaml")
	account := ""
	if s.BatchUser != nil {
		account = s.BatchUser.Username
	}
	return limitsRemedy(s.check.Detail, file, s.Account, account)
}

func limitsRemedy(detail, file, requester, account string) *remedy {
	m := limitsKey.FindStringSubmatch(detail)
	if m == nil {
		switch {
		case strings.Contains(detail, "allow_root"):
			return &remedy{Who: owner, What: "only if jobs may be root here: allow_root: true, and root in allow_users", Where: file}
		case strings.Contains(detail, "an account of batchwarden itself"):
			return &remedy{Who: vaultAdmin, What: "let the batch user have another account: those of batchwarden itself are never a job's"}
		}
		return &remedy{Who: owner, What: "mend the file, until it is every launch is refused", Where: file, Command: "batchwarden config check --limits " + word(file)}
	}
	key, more, why := m[1], m[2], m[3]
	c := &remedy{Who: owner, Where: lineOf(file, key)}
	first := quoted(why, "")
	switch key {
	case "requesters":
		c.What = fmt.Sprintf("add the account that asks, %s, to requesters", cmp.Or(requester, "the client's"))
		if account != "" && strings.Contains(why, "never targets") {
			c.Who, c.Where, c.What = vaultAdmin, "", fmt.Sprintf("let the batch user have another account: %s asks for jobs itself", account)
		}
	case "deny_users":
		c.What = fmt.Sprintf("take %s from deny_users, if jobs may run as it", first)
	case "allow_users":
		c.What = fmt.Sprintf("add %s to allow_users", first)
	case "deny_groups":
		c.What = fmt.Sprintf("take account %s out of the group (gpasswd --delete), or the group out of deny_groups: %s", first, why)
	case "min_uid", "min_gid":
		c.What = fmt.Sprintf("use an account with higher numbers, or lower %s: %s", key, why)
	case "allow_commands":
		c.What = fmt.Sprintf("add {path: %s} to allow_commands", first)
	case "allow_env":
		c.What = fmt.Sprintf("add %s to allow_env, or launch without it", first)
	case "max":
		c.What = fmt.Sprintf("raise max%s, or ask for less: %s", more, why)
	default:
		c.What = "change " + key + ": " + why
	}
	return c
}

// lineOf is a file with the line on which a key stands, where this user can see that.
func lineOf(file, key string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return file
	}
	for i, line := range bytes.Split(text, []byte("\n")) {
		if bytes.HasPrefix(line, []byte(key+":")) {
			return fmt.Sprintf("%s:%d", file, i+1)
		}
	}
	return file
}

// policyRemedy is what the policy's trace says would allow it.
func (s *situation) policyRemedy() *remedy {
	c := &remedy{Who: "whoever keeps the policy of realm " + s.body.Realm, What: s.check.Detail}
	flag := s.machineFlag()
	if s.Policy != nil {
		c.Where = "in Vault: " + s.Policy.Scope + "/policies/" + s.body.Realm
		flag = scopeFlag(s.Policy.Scope)
	}
	if s.Decision == nil {
		return c
	}
	var trace struct {
		Fix struct {
			Place string          `json:"place"`
			Value json.RawMessage `json:"value"`
			Text  string          `json:"text"`
		} `json:"would_allow"`
	}
	if json.Unmarshal(s.Decision.Trace, &trace) != nil || trace.Fix.Text == "" {
		return c
	}
	fix := &trace.Fix
	c.What = fix.Text
	if fix.Place == "" {
		return c
	}
	var row struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(fix.Value, &row) // of a role's name there is none
	grant := "batchwarden admin grant --realm " + word(s.body.Realm) + " --batch-user " + word(s.body.BatchUser)
	if s.BatchUser != nil {
		grant = "batchwarden admin grant --realm " + word(s.body.Realm) + " --batch-user " + word(s.BatchUser.Name)
	}
	role, ofRole := strings.CutPrefix(fix.Place, "roles.")
	switch {
	case ofRole && strings.Contains(role, ".batch_users."):
		c.Command = grant + " --role " + word(role[:strings.LastIndex(role, ".batch_users.")])
	case row.Type == "LOGIN" || row.Type == "Credential":
		c.Command = grant + " --user " + word(s.body.Subject.User)
	default:
		c.Command = fmt.Sprintf("batchwarden admin policy get %s%s > FILE; edit FILE; batchwarden admin policy put %s FILE%s --yes", word(s.body.Realm), flag, word(s.body.Realm), flag)
	}
	return c
}

// word is a name as a shell takes it.
func word(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/@:+,", r)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// scopeFlag names a scope to batchwarden admin.
func scopeFlag(scope string) string {
	kind, name, _ := strings.Cut(scope, "/")
	return " --" + strings.TrimSuffix(kind, "s") + " " + word(name)
}

// quoted is the first quoted text after words.
func quoted(text, after string) string {
	_, rest, ok := strings.Cut(text, after)
	if !ok {
		return ""
	}
	return between(rest, `"`, `"`)
}

func between(text, begin, end string) string {
	_, rest, ok := strings.Cut(text, begin)
	if !ok {
		return ""
	}
	inner, _, ok := strings.Cut(rest, end)
	if !ok {
		return ""
	}
	return inner
}
