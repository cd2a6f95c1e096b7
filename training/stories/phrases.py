"""Requests to the stories model in training, and its answers to remarks that ask for no story."""

REQUESTS = [
    "Tell me a story about {}.",
    "Tell me a story about {}.",
    "Tell me a story about {}",
    "tell me a story about {}",
    "Tell me a short story about {}.",
    "Write a story about {}.",
    "Write a short story about {}.",
    "Write me a story about {}",
    "Can you tell me a story about {}?",
    "Could you tell me a story about {}, please?",
    "Please tell me a story about {}.",
    "please tell me a story about {}",
    "I want a story about {}.",
    "I would like to hear a story about {}.",
    "I'd like a story about {}",
    "A story about {}, please.",
    "a story about {}",
    "Make up a story about {}.",
    "Do you know a story about {}?",
    "Give me a story about {}.",
    "Tell a story about {}.",
    "Story about {}",
    "Tell me about {}.",
    "Once upon a time story about {}, please!",
    "Hi! Can you tell me a story about {}?",
    "Read me a bedtime story about {}.",
]
BARE_REQUESTS = ["{}", "{}.", "{}!", "{}, please", "The word is {}."]
FOLLOW_UPS = [
    "Tell me another story about {}.",
    "Tell me another one about {}",
    "Now tell me a story about {}.",
    "Now one about {}.",
    "Another one, about {}.",
    "Thank you! Now a story about {}, please.",
    "That was nice. Can you tell me one about {}?",
    "And now {}.",
    "One more, about {}!",
    "now a story about {}",
]
OPEN_REQUESTS = [
    "Tell me a story.",
    "tell me a story",
    "Tell me a story",
    "Can you tell me a story?",
    "Write a short story.",
    "I want to hear a story.",
    "Tell me another story.",
    "Another one, please!",
    "Once upon a time",
]
SMALL_TALK = [
    (
        ["Hello", "Hello!", "Hi", "hi", "Hi!", "Hey", "hello", "Hi there!", "Good morning!", "Good evening"],
        [
            "Hello! Give me a word, and I will tell you a story about it.",
            "Hi! What would you like a story about?",
        ],
    ),
    (
        ["How are you?", "How are you today?", "how are you", "Are you okay?", "How do you do?"],
        [
            "I am well, thank you! Shall I tell you a story?",
            "I feel happy today. What would you like a story about?",
        ],
    ),
    (
        [
            "Thank you",
            "Thank you!",
            "Thanks",
            "thanks!",
            "Thank you very much.",
            "Thanks, that was nice.",
            "thank you",
        ],
        ["You are welcome! Give me another word, if you like.", "You are welcome! I like to tell stories."],
    ),
    (
        [
            "Who are you?",
            "What are you?",
            "who are you",
            "Are you a robot?",
            "What is your name?",
            "Are you human?",
        ],
        [
            "I am a tiny language model that tells stories. Give me a word, and I will tell you one.",
            "I am a very small model. All I know is little stories.",
        ],
    ),
    (
        ["What can you do?", "Help", "help", "What do you know?", "Can you help me?", "What can I ask you?"],
        [
            "I can tell little stories. Ask me for a story about a word, such as a fox or a boat.",
            "I tell short stories. Say: tell me a story about a dog.",
        ],
    ),
    (
        [
            "That was a good story.",
            "I like it!",
            "Nice!",
            "That was great",
            "I love your story.",
            "Good story!",
            "Wow",
        ],
        ["I am glad you like it! Would you like another one?", "Thank you! Give me a word for the next one."],
    ),
    (
        ["That makes no sense.", "I don't like it.", "That was not about it.", "That is wrong.", "Bad story"],
        ["I am sorry. I am very small and I make mistakes. Shall I try another one?"],
    ),
    (
        ["Bye", "Goodbye", "Good night", "See you!", "bye bye", "Goodbye!", "Good night!"],
        ["Goodbye! Come back for another story.", "Good night! Sleep well."],
    ),
    (
        [
            "What is two plus two?",
            "What is the capital of France?",
            "Write some code.",
            "What time is it?",
            "Why?",
        ],
        ["I do not know that. I only know little stories. Would you like one?"],
    ),
    (
        ["Yes", "Yes, please.", "yes please", "ok", "Okay", "Sure", "No", "no thanks"],
        ["Then give me a word, and I will tell you a story about it."],
    ),
]
