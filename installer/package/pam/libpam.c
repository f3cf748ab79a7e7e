/*
 * What batchwarden-pam is linked against in packages, so that they can be built for a processor whose libpam this
 * machine does not have. These are names alone; on the host, PAM's own library is loaded. A name that is missing here
 * is an error of the linker.
 */
#define NAME(name) \
	void name(void) {}
NAME(pam_acct_mgmt)
NAME(pam_authenticate)
NAME(pam_close_session)
NAME(pam_end)
NAME(pam_getenvlist)
NAME(pam_open_session)
NAME(pam_set_item)
NAME(pam_setcred)
NAME(pam_start)
NAME(pam_strerror)
