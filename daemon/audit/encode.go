package audit

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
)

// appendTo appends the record's members, each after a comma, as encoding/json writes those of Record. Two records are
// written for each password that is handed out, and by reflection they took as long as everything else about them.
func (r *Record) appendTo(b []byte) ([]byte, error) {
	b, err := r.Time.AppendText(append(b, `,"time":"`...))
	if err != nil {
		return nil, err
	}
	b = appendText(append(b, `","kind":`...), r.Kind)
	b = appendSome(b, "decision_id", r.DecisionID)
	b = appendSome(b, "verdict", r.Verdict)
	b = appendSome(b, "code", r.Code)
	b = appendSome(b, "rule", r.Rule)
	b = appendSome(b, "reason", r.Reason)
	b = appendSome(b, "client", r.Client)
	if r.Operator {
		b = append(b, `,"operator":true`...)
	}
	if r.Peer != nil {
		b = r.Peer.appendTo(append(b, `,"peer":`...))
	}
	b = appendSome(b, "realm", r.Realm)
	if r.Subject != nil {
		b = r.Subject.appendTo(append(b, `,"subject":`...))
	}
	b = appendSome(b, "action", r.Action)
	b = appendSome(b, "batch_user", r.BatchUser)
	b = appendSome(b, "username", r.Username)
	b = appendList(b, "withheld", r.Withheld)
	b = appendNumber(b, "credential_version", r.CredentialVersion)
	b = appendNumber(b, "policy_version", r.PolicyVersion)
	return r.appendRest(b)
}

// appendRest appends what few records have.
func (r *Record) appendRest(b []byte) ([]byte, error) {
	if r.Job == nil && r.ForClient == "" && r.HostKey == nil && r.Service == nil && r.Config == nil && len(r.Changed) == 0 && len(r.Removed) == 0 && r.Count == 0 && r.Since.IsZero() &&
		r.File == nil && r.Torn == nil {
		return b, nil
	}
	text, err := encoded(struct {
		Job       *Job      `json:"job,omitempty"`
		ForClient string    `json:"for_client,omitempty"`
		HostKey   *HostKey  `json:"host_key,omitempty"`
		Service   *Service  `json:"service,omitempty"`
		Config    *Config   `json:"config,omitempty"`
		Changed   []string  `json:"changed,omitempty"`
		Removed   []string  `json:"removed,omitempty"`
		Count     int64     `json:"count,omitempty"`
		Since     time.Time `json:"since,omitzero"`
		File      *File     `json:"file,omitempty"`
		Torn      *Torn     `json:"torn,omitempty"`
	}{r.Job, r.ForClient, r.HostKey, r.Service, r.Config, r.Changed, r.Removed, r.Count, r.Since, r.File, r.Torn})
	if err != nil {
		return nil, err
	}
	return append(append(b, ','), text[1:len(text)-1]...), nil
}

func (p *Peer) appendTo(b []byte) []byte {
	begin := len(b)
	b = appendNumber(b, "pid", int64(p.PID))
	b = strconv.AppendUint(append(b, `,"uid":`...), uint64(p.UID), 10)
	b = strconv.AppendUint(append(b, `,"gid":`...), uint64(p.GID), 10)
	b = appendSome(b, "user", p.User)
	b = appendSome(b, "unit", p.Unit)
	b = appendSome(b, "exe", p.Exe)
	b = appendSome(b, "sha256", p.SHA256)
	return object(b, begin)
}

func (s *Subject) appendTo(b []byte) []byte {
	begin := len(b)
	b = appendSome(b, "user", s.User)
	b = appendList(b, "roles", s.Roles)
	b = appendSome(b, "by", s.By)
	return object(b, begin)
}

// object makes the members from begin on, each after a comma, an object.
func object(b []byte, begin int) []byte {
	if len(b) == begin {
		return append(b, "{}"...)
	}
	b[begin] = '{'
	return append(b, '}')
}

func appendName(b []byte, name string) []byte {
	return append(append(append(b, `,"`...), name...), `":`...)
}

// appendSome appends a member, unless it is empty.
func appendSome(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendText(appendName(b, name), value)
}

func appendNumber(b []byte, name string, value int64) []byte {
	if value == 0 {
		return b
	}
	return strconv.AppendInt(appendName(b, name), value, 10)
}

func appendList(b []byte, name string, values []string) []byte {
	if len(values) == 0 {
		return b
	}
	b = append(appendName(b, name), '[')
	for i, value := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, value)
	}
	return append(b, ']')
}

// appendText appends a string. One that needs more than quotes is left to encoding/json.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			text, _ := encoded(s) // there is no string that it cannot encode
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// encoded is v in JSON, without regard to HTML.
func encoded(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
