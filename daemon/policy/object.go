package policy

import (
	"encoding/json"
	"math/bits"
	"slices"
)

// A Record is one record of a controller that a request refers to.
type Record struct {
	Type     string   `json:"type,omitempty"` // connections and records only
	Name     string   `json:"name"`
	Services []string `json:"services,omitzero"` // its business services; nil: not said
}

// An Object is what a request is about: every member of every action of the
// three models. Which of them an action lists is the engine's to say;
// Given tells which the request gave, empty ones too.
type Object struct {
	Given Members

	Type, Name           string
	Host, Login, FileSrc string
	HostDst, LoginDst    string
	FileDst              string
	Template, Folder     string
	Services             []string
	Parents              []Record // of a task instance, the nearest first
	Task, Trigger        Record
	Agent, Credential    Record
	Scripts              []Record
	VirtualResources     []Record
	Connections          []Record
	Variables            []Record
	Bundle, Target       Record
	Owner, User          string
	Event, Record        Record
	Platform, BatchUser  string
	Machine              string
	References           int // jobs that refer to the batch user
}

// Members is a set of members of an Object.
type Members uint32

// The members, in the order in which a table of names and places lists them.
const (
	MemberType Members = 1 << iota
	MemberName
	MemberHost
	MemberLogin
	MemberFileSrc
	MemberHostDst
	MemberLoginDst
	MemberFileDst
	MemberTemplate
	MemberFolder
	MemberServices
	MemberParents
	MemberTask
	MemberTrigger
	MemberAgent
	MemberCredential
	MemberScripts
	MemberVirtualResources
	MemberConnections
	MemberVariables
	MemberBundle
	MemberTarget
	MemberOwner
	MemberUser
	MemberEvent
	MemberRecord
	MemberPlatform
	MemberBatchUser
	MemberMachine
	MemberReferences
)

var memberNames = [...]string{"type", "name", "host", "login", "file_src", "host_dst", "login_dst", "file_dst",
	"template", "folder", "services", "parents", "task", "trigger", "agent", "credential", "scripts",
	"virtual_resources", "connections", "variables", "bundle", "target", "owner", "user", "event", "record",
	"platform", "batch_user", "machine", "references"}

// Names returns the members' names as a request writes them.
func (m Members) Names() []string {
	var names []string
	for ; m != 0; m &= m - 1 {
		names = append(names, memberNames[bits.TrailingZeros32(uint32(m))])
	}
	return names
}

// Only returns an error that names the first member which o gives and listed
// does not have, or else the first of required which o does not give.
func (o *Object) Only(action string, listed, required Members) *InvalidError {
	if extra := o.Given &^ listed; extra != 0 {
		return &InvalidError{"object." + extra.Names()[0], "is not a member for the action " + quoted(action)}
	}
	if missing := required &^ o.Given; missing != 0 {
		return &InvalidError{"object." + missing.Names()[0], "is required for the action " + quoted(action)}
	}
	return nil
}

// member returns where the member with one bit is kept: a *string, *[]string,
// *Record, *[]Record or *int.
func (o *Object) member(m Members) any {
	switch m {
	case MemberType:
		return &o.Type
	case MemberName:
		return &o.Name
	case MemberHost:
		return &o.Host
	case MemberLogin:
		return &o.Login
	case MemberFileSrc:
		return &o.FileSrc
	case MemberHostDst:
		return &o.HostDst
	case MemberLoginDst:
		return &o.LoginDst
	case MemberFileDst:
		return &o.FileDst
	case MemberTemplate:
		return &o.Template
	case MemberFolder:
		return &o.Folder
	case MemberServices:
		return &o.Services
	case MemberParents:
		return &o.Parents
	case MemberTask:
		return &o.Task
	case MemberTrigger:
		return &o.Trigger
	case MemberAgent:
		return &o.Agent
	case MemberCredential:
		return &o.Credential
	case MemberScripts:
		return &o.Scripts
	case MemberVirtualResources:
		return &o.VirtualResources
	case MemberConnections:
		return &o.Connections
	case MemberVariables:
		return &o.Variables
	case MemberBundle:
		return &o.Bundle
	case MemberTarget:
		return &o.Target
	case MemberOwner:
		return &o.Owner
	case MemberUser:
		return &o.User
	case MemberEvent:
		return &o.Event
	case MemberRecord:
		return &o.Record
	case MemberPlatform:
		return &o.Platform
	case MemberBatchUser:
		return &o.BatchUser
	case MemberMachine:
		return &o.Machine
	case MemberReferences:
		return &o.References
	}
	panic("policy: not a member")
}

// MarshalJSON writes the members that were given.
func (o Object) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, name := range memberNames {
		m := Members(1) << i
		if o.Given&m == 0 {
			continue
		}
		v, err := json.Marshal(o.member(m))
		if err != nil {
			return nil, err
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), name...), '"', ':')
		b = append(b, v...)
	}
	return append(b, '}'), nil
}

// Fill sets a text that the daemon knows. It is an error that the request
// gave another one; same says what counts as the same, nil for equal.
func (o *Object) Fill(m Members, value string, same func(a, b string) bool) *InvalidError {
	p := o.member(m).(*string)
	if o.Given&m != 0 && *p != value && (same == nil || !same(*p, value)) {
		return &InvalidError{"object." + m.Names()[0], "is " + quoted(*p) + "; here it is " + quoted(value)}
	}
	*p = value
	o.Given |= m
	return nil
}

func (o Object) clone() Object {
	o.Services = slices.Clone(o.Services)
	for _, list := range []*[]Record{&o.Parents, &o.Scripts, &o.VirtualResources, &o.Connections, &o.Variables} {
		*list = slices.Clone(*list)
		for i := range *list {
			(*list)[i].Services = slices.Clone((*list)[i].Services)
		}
	}
	for _, r := range []*Record{&o.Task, &o.Trigger, &o.Agent, &o.Credential, &o.Bundle, &o.Target, &o.Event, &o.Record} {
		r.Services = slices.Clone(r.Services)
	}
	return o
}
