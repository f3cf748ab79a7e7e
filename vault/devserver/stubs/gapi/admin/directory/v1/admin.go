// Package admin satisfies the jwt method's imports in place of a cloud's
// directory client. Asking it for anything fails.
package admin

import (
	"context"
	"errors"
)

const (
	AdminDirectoryGroupReadonlyScope = "group.readonly"
	AdminDirectoryUserReadonlyScope  = "user.readonly"
)

var errLeftOut = errors.New("admin: left out of the test server")

func NewService(context.Context, ...any) (*Service, error) { return nil, errLeftOut }

type Service struct {
	Groups *GroupsService
	Users  *UsersService
}

type (
	GroupsService  struct{}
	UsersService   struct{}
	GroupsListCall struct{}
	UsersGetCall   struct{}

	Group  struct{ Email string }
	Groups struct{ Groups []*Group }
	User   struct{ CustomSchemas map[string][]byte }
)

func (*GroupsService) List() *GroupsListCall                             { return nil }
func (c *GroupsListCall) UserKey(string) *GroupsListCall                 { return c }
func (c *GroupsListCall) Domain(string) *GroupsListCall                  { return c }
func (c *GroupsListCall) Fields(...string) *GroupsListCall               { return c }
func (*GroupsListCall) Pages(context.Context, func(*Groups) error) error { return errLeftOut }

func (*UsersService) Get(string) *UsersGetCall                { return nil }
func (c *UsersGetCall) Context(context.Context) *UsersGetCall { return c }
func (c *UsersGetCall) Projection(string) *UsersGetCall       { return c }
func (c *UsersGetCall) CustomFieldMask(string) *UsersGetCall  { return c }
func (c *UsersGetCall) Fields(...string) *UsersGetCall        { return c }
func (*UsersGetCall) Do(...any) (*User, error)                { return nil, errLeftOut }
