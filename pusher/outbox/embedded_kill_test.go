package outbox_test

const victimDir = "OUTBOX_TEST_VICTIM"

func victim(string) {}
