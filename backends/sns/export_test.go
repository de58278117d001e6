package sns

// TopicARN is what tests look at from outside.
var TopicARN = topicARN
