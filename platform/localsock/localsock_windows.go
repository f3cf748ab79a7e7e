package localsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
)

var errUnsupported = fmt.Errorf("localsock: named pipes are not supported yet: %w", errors.ErrUnsupported)

func listenWith(string, Options) (*net.UnixListener, error) { return nil, errUnsupported }

func makeDir(string, fs.FileMode, int) error { return errUnsupported }

func fromFile(*os.File) (*net.UnixListener, error) { return nil, errUnsupported }

func check(string) error { return errUnsupported }

func dial(context.Context, string, ...uint32) (*net.UnixConn, error) { return nil, errUnsupported }

func dup(syscall.Conn, string) (*os.File, error) { return nil, errUnsupported }

func sendFiles(*net.UnixConn, []byte, []syscall.Conn) (int, error) { return 0, errUnsupported }

func receiveFiles(*net.UnixConn, []byte, int) (int, []*os.File, error) { return 0, nil, errUnsupported }

func controlRoom(int) []byte { return nil }
