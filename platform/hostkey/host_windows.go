package hostkey

import "golang.org/x/sys/windows/registry"

// machineIDs reads the id that the set-up of Windows gave the machine.
func machineIDs() []string {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, `SOFTWARE\Microsoft\Cryptography`, registry.QUERY_VALUE|registry.WOW64_64KEY)
	if err != nil {
		return nil
	}
	text, _, err := k.GetStringValue("MachineGuid")
	_ = k.Close() // only read
	if err != nil {
		return nil
	}
	return []string{text}
}
