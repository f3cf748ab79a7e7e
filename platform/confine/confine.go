// Package confine takes from the calling process, for good, what it does not
// need: rights that an exec could bring, and the file system.
package confine

import "fmt"

// Reader confines the whole process, every thread of it. Once it returns nil,
// no exec gains a privilege, and where the kernel has Landlock nothing can be
// executed, written, created, removed or renamed anywhere, and nothing read but
// what lies at or beneath paths. A path that does not exist is passed over.
// Descriptors that are open already keep working, and so does the network.
//
// how says in a few words what is in force. A kernel without Landlock is not an
// error; how says so. A platform that can do none of this returns an error
// that wraps errors.ErrUnsupported. After any other error part of it may be in
// force: the caller should end.
func Reader(paths ...string) (how string, err error) {
	how, err = reader(paths)
	if err != nil {
		return "", fmt.Errorf("confine: %w", err)
	}
	return how, nil
}
