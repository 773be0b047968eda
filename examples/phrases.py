"""The phrase book that the demo translator learns by heart: English, German, French."""

from __future__ import annotations

from typing import NamedTuple


class Phrase(NamedTuple):
    """One phrase in the three languages; the fields are named by language code."""

    en: str
    de: str
    fr: str


PHRASES: tuple[Phrase, ...] = (
    Phrase(
        "The weather is lovely today",
        "Das Wetter ist heute nett.",
        "Le temps est beau aujourd'hui",
    ),
    Phrase("Good morning", "Guten Morgen", "Bonjour"),
    Phrase("Good evening", "Guten Abend", "Bonsoir"),
    Phrase("Good night", "Gute Nacht", "Bonne nuit"),
    Phrase("How are you?", "Wie geht es dir?", "Comment vas-tu ?"),
    Phrase("I am very well, thank you", "Mir geht es sehr gut, danke", "Je vais très bien, merci"),
    Phrase("What is your name?", "Wie heißt du?", "Comment t'appelles-tu ?"),
    Phrase("My name is Anna", "Ich heiße Anna", "Je m'appelle Anna"),
    Phrase("Nice to meet you", "Schön, dich kennenzulernen", "Ravi de te rencontrer"),
    Phrase("See you tomorrow", "Bis morgen", "À demain"),
    Phrase("Thank you very much", "Vielen Dank", "Merci beaucoup"),
    Phrase("You are welcome", "Gern geschehen", "De rien"),
    Phrase("Excuse me, please", "Entschuldigung, bitte", "Excusez-moi, s'il vous plaît"),
    Phrase("I do not understand", "Ich verstehe nicht", "Je ne comprends pas"),
    Phrase(
        "Please speak more slowly", "Bitte sprich langsamer", "Parle plus lentement, s'il te plaît"
    ),
    Phrase("Do you speak English?", "Sprichst du Englisch?", "Parles-tu anglais ?"),
    Phrase("Where is the station?", "Wo ist der Bahnhof?", "Où est la gare ?"),
    Phrase("Where is the library?", "Wo ist die Bibliothek?", "Où est la bibliothèque ?"),
    Phrase("Turn left at the bridge", "Bieg an der Brücke links ab", "Tourne à gauche au pont"),
    Phrase("The train leaves at eight", "Der Zug fährt um acht ab", "Le train part à huit heures"),
    Phrase(
        "The train is late again", "Der Zug ist wieder verspätet", "Le train est encore en retard"
    ),
    Phrase(
        "One ticket to Berlin, please",
        "Eine Fahrkarte nach Berlin, bitte",
        "Un billet pour Berlin, s'il vous plaît",
    ),
    Phrase("How much does it cost?", "Wie viel kostet das?", "Combien ça coûte ?"),
    Phrase("That is too expensive", "Das ist zu teuer", "C'est trop cher"),
    Phrase("The bill, please", "Die Rechnung, bitte", "L'addition, s'il vous plaît"),
    Phrase("I would like a coffee", "Ich hätte gern einen Kaffee", "Je voudrais un café"),
    Phrase("The soup is too hot", "Die Suppe ist zu heiß", "La soupe est trop chaude"),
    Phrase("The bread is fresh", "Das Brot ist frisch", "Le pain est frais"),
    Phrase("I am hungry", "Ich habe Hunger", "J'ai faim"),
    Phrase("I am tired", "Ich bin müde", "Je suis fatigué"),
    Phrase("What time is it?", "Wie spät ist es?", "Quelle heure est-il ?"),
    Phrase("It is raining again", "Es regnet schon wieder", "Il pleut encore"),
    Phrase("It will snow tomorrow", "Morgen wird es schneien", "Il neigera demain"),
    Phrase("The sun is shining", "Die Sonne scheint", "Le soleil brille"),
    Phrase(
        "The cat sleeps on the sofa", "Die Katze schläft auf dem Sofa", "Le chat dort sur le canapé"
    ),
    Phrase("The house is old", "Das Haus ist alt", "La maison est vieille"),
    Phrase("My brother lives in Paris", "Mein Bruder wohnt in Paris", "Mon frère habite à Paris"),
    Phrase("We are going to the sea", "Wir fahren ans Meer", "Nous allons à la mer"),
    Phrase("I have lost my key", "Ich habe meinen Schlüssel verloren", "J'ai perdu ma clé"),
    Phrase("Can you help me?", "Kannst du mir helfen?", "Peux-tu m'aider ?"),
    Phrase("The book is on the table", "Das Buch liegt auf dem Tisch", "Le livre est sur la table"),
    Phrase("Happy birthday", "Alles Gute zum Geburtstag", "Joyeux anniversaire"),
)
